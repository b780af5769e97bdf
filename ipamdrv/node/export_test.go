package node

// HandleRecord is the record of a handle.
type HandleRecord = handleRecord
