package boltstore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/mellanox/passthrough/store"
)

// headerLen is the length of the header of a record in the file: revision (8 bytes) and checksum (4 bytes).
const headerLen = 12

// castagnoli is the polynomial with hardware support on the machines we run on.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frame encodes a record for the file: revision, checksum over key, revision and value, value. bbolt has no checksum over data, and a
// flipped bit could turn one address into another.
func frame(key string, value []byte, rev int64) []byte {
	out := make([]byte, headerLen, headerLen+len(value))
	binary.BigEndian.PutUint64(out, uint64(rev))
	out = append(out, value...)
	binary.BigEndian.PutUint32(out[8:], checksum(key, out))
	return out
}

// unframe decodes what [frame] has encoded. The result shares no memory with raw.
func unframe(key string, raw []byte) (store.KV, error) {
	if len(raw) < headerLen {
		return store.KV{}, fmt.Errorf("record %s: %d bytes are too few: %w", key, len(raw), store.ErrCorrupt)
	}
	if binary.BigEndian.Uint32(raw[8:]) != checksum(key, raw) {
		return store.KV{}, fmt.Errorf("record %s: wrong checksum: %w", key, store.ErrCorrupt)
	}
	rev := int64(binary.BigEndian.Uint64(raw))
	return store.KV{Key: key, Value: bytes.Clone(raw[headerLen:]), Rev: rev}, nil
}

// checksum covers key and framed, except for the bytes of the checksum itself.
func checksum(key string, framed []byte) uint32 {
	sum := crc32.Update(0, castagnoli, []byte(key))
	sum = crc32.Update(sum, castagnoli, framed[:8])
	return crc32.Update(sum, castagnoli, framed[headerLen:])
}

// head has totals over all records. It reveals a missing record, where the record's own checksum reveals a changed one.
type head struct {
	rev   int64  // revision of the newest write
	count uint64 // number of records
	sums  uint32 // the records' checksums, combined by exclusive or
}

// headLen is the length of an encoded head: its fields and a checksum.
const headLen = 8 + 8 + 4 + 4

// encode encodes the head for the file.
func (h head) encode() []byte {
	out := binary.BigEndian.AppendUint64(nil, uint64(h.rev))
	out = binary.BigEndian.AppendUint64(out, h.count)
	out = binary.BigEndian.AppendUint32(out, h.sums)
	return binary.BigEndian.AppendUint32(out, crc32.Checksum(out, castagnoli))
}

// decodeHead decodes what encode has encoded. A file without a head has had no write.
func decodeHead(raw []byte) (head, error) {
	if raw == nil {
		return head{}, nil
	}
	if len(raw) != headLen || binary.BigEndian.Uint32(raw[20:]) != crc32.Checksum(raw[:20], castagnoli) {
		return head{}, fmt.Errorf("head: wrong checksum: %w", store.ErrCorrupt)
	}
	return head{
		rev:   int64(binary.BigEndian.Uint64(raw)),
		count: binary.BigEndian.Uint64(raw[8:]),
		sums:  binary.BigEndian.Uint32(raw[16:]),
	}, nil
}

// add adds a framed record to the totals.
func (h *head) add(framed []byte) {
	h.count++
	h.sums ^= binary.BigEndian.Uint32(framed[8:])
}

// remove removes a framed record from the totals.
func (h *head) remove(framed []byte) {
	h.count--
	h.sums ^= binary.BigEndian.Uint32(framed[8:])
}
