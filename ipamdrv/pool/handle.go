package pool

import (
	"crypto/rand"
	"encoding/hex"
	"strings"
)

// A Handle is what the engine stores as PoolID. A pool of one network is known by its ID alone; each network of a shared pool has a share of
// its own, so that it cannot release what another one holds.
type Handle struct {
	ID    string // of the pool
	Share string // "" if the pool is not shared
}

const (
	handlePrefix = "v1:" // v1:ID or v1:ID.SHARE
	idBytes      = 16
)

// NewID returns a random ID.
func NewID() string {
	raw := make([]byte, idBytes)
	rand.Read(raw) // never fails
	return hex.EncodeToString(raw)
}

// isID returns true if text has the form of an ID.
func isID(text string) bool {
	for i := range len(text) {
		if c := text[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(text) == hex.EncodedLen(idBytes)
}

// ParseHandle parses a handle, and returns false if it is none of this driver.
func ParseHandle(text string) (Handle, bool) {
	rest, ok := strings.CutPrefix(text, handlePrefix)
	id, share, shared := strings.Cut(rest, ".")
	return Handle{id, share}, ok && isID(id) && (!shared || isID(share))
}

// String returns the handle as the engine stores it.
func (h Handle) String() string {
	if h.Share == "" {
		return handlePrefix + h.ID
	}
	return handlePrefix + h.ID + "." + h.Share
}
