package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// frameHeader is what stands before a record's value in the file: revision (8 bytes) and checksum (4 bytes).
const frameHeader = 12

// castagnoli is the polynomial with hardware support on the machines we run on.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frame is a record as it lies in the file: revision, checksum over key, revision and value, value. The checksum is
// ours because bbolt has none over data: without it a flipped bit could turn one address into another.
func frame(key string, value []byte, rev int64) []byte {
	out := make([]byte, frameHeader, frameHeader+len(value))
	binary.BigEndian.PutUint64(out, uint64(rev))
	out = append(out, value...)
	binary.BigEndian.PutUint32(out[8:], checksum(key, out))
	return out
}

// unframe is the reverse of [frame]. The result shares no memory with raw.
func unframe(key string, raw []byte) (KV, error) {
	if len(raw) < frameHeader {
		return KV{}, fmt.Errorf("record %s: %d bytes are too few: %w", key, len(raw), ErrCorrupt)
	}
	if binary.BigEndian.Uint32(raw[8:]) != checksum(key, raw) {
		return KV{}, fmt.Errorf("record %s: wrong checksum: %w", key, ErrCorrupt)
	}
	rev := int64(binary.BigEndian.Uint64(raw))
	return KV{Key: key, Value: bytes.Clone(raw[frameHeader:]), Rev: rev}, nil
}

// checksum is over key and framed, without the bytes that hold the checksum itself.
func checksum(key string, framed []byte) uint32 {
	sum := crc32.Update(0, castagnoli, []byte(key))
	sum = crc32.Update(sum, castagnoli, framed[:8])
	return crc32.Update(sum, castagnoli, framed[frameHeader:])
}

// head is what the store knows of its records as a whole. With it a record that is missing is seen, not only one that
// was changed.
type head struct {
	rev   int64  // revision of the newest write
	count uint64 // number of records
	sums  uint32 // the records' checksums, combined by exclusive or
}

// headLen is the length of an encoded head: its fields and a checksum.
const headLen = 8 + 8 + 4 + 4

// encode is the head as it lies in the file.
func (h head) encode() []byte {
	out := binary.BigEndian.AppendUint64(nil, uint64(h.rev))
	out = binary.BigEndian.AppendUint64(out, h.count)
	out = binary.BigEndian.AppendUint32(out, h.sums)
	return binary.BigEndian.AppendUint32(out, crc32.Checksum(out, castagnoli))
}

// decodeHead is the reverse of encode; without a head there was no write yet.
func decodeHead(raw []byte) (head, error) {
	if raw == nil {
		return head{}, nil
	}
	if len(raw) != headLen || binary.BigEndian.Uint32(raw[20:]) != crc32.Checksum(raw[:20], castagnoli) {
		return head{}, fmt.Errorf("head: wrong checksum: %w", ErrCorrupt)
	}
	return head{
		rev:   int64(binary.BigEndian.Uint64(raw)),
		count: binary.BigEndian.Uint64(raw[8:]),
		sums:  binary.BigEndian.Uint32(raw[16:]),
	}, nil
}

// add counts a framed record.
func (h *head) add(framed []byte) {
	h.count++
	h.sums ^= binary.BigEndian.Uint32(framed[8:])
}

// remove is the reverse of add.
func (h *head) remove(framed []byte) {
	h.count--
	h.sums ^= binary.BigEndian.Uint32(framed[8:])
}
