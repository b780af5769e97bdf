package vfpool

// The records of PFs.
type (
	PFRecord = pfRecord
	UpRecord = upRecord
)
