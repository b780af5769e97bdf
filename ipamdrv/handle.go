package ipamdrv

import (
	"crypto/rand"
	"encoding/hex"
	"strings"
)

// handle is what the engine stores as PoolID. A pool that one network has is known by its ID alone; each network that
// shares a pool has a share of its own, so that what one of them releases is not another's.
type handle struct {
	id    string // the pool's
	share string // "" when the pool is not shared
}

const (
	handlePrefix = "v1:" // v1:ID or v1:ID.SHARE
	idBytes      = 16
)

// newID makes an ID that nothing has.
func newID() string {
	raw := make([]byte, idBytes)
	rand.Read(raw) // never fails
	return hex.EncodeToString(raw)
}

// isID says whether text can be an ID.
func isID(text string) bool {
	raw, err := hex.DecodeString(text)
	return err == nil && len(raw) == idBytes && text == strings.ToLower(text)
}

// parseHandle reads a handle, false when it is none of ours.
func parseHandle(text string) (handle, bool) {
	rest, ok := strings.CutPrefix(text, handlePrefix)
	id, share, shared := strings.Cut(rest, ".")
	return handle{id, share}, ok && isID(id) && (!shared || isID(share))
}

// String is the handle as the engine stores it.
func (h handle) String() string {
	if h.share == "" {
		return handlePrefix + h.id
	}
	return handlePrefix + h.id + "." + h.share
}
