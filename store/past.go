package store

// Rememberer is a Store that refuses a state older than one that it has shown: what looks free there may be in use. Once it
// has met one it refuses all, whatever it shows later; the errors match [ErrPast]. It can be told, when it is opened, what its
// predecessor has seen.
type Rememberer interface {
	// Past is the newest state that was seen, for Recall; nil while none was.
	Past() []byte
	// Recall tells what was seen before. It must be called before the first use. The error matches [ErrCorrupt] when past
	// is nothing that Past has returned.
	Recall(past []byte) error
}
