package boltstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"strconv"

	"github.com/mellanox/passthrough/store"
)

// The file is checked before bbolt opens it, page by page and with every length, because bbolt trusts what it maps into memory: on a
// damaged file it does not return an error but dies (SIGBUS, SIGSEGV, endless recursion), and the plugin would die again at every start.
// The numbers below are bbolt's file format, version 2.
const (
	pageHeader = 16 // id u64, flags u16, count u16, overflow u32
	leafElem   = 16 // flags u32, pos u32, ksize u32, vsize u32
	branchElem = 16 // pos u32, ksize u32, pgid u64
	bucketHead = 16 // root pgid u64, sequence u64
	metaLen    = 64 // magic, version, page size, flags u32; root, sequence, freelist, pgid, txid, checksum u64

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagFreelist = 0x10
	flagBucket   = 0x01 // of a leaf element: the value is a bucket

	boltMagic   = 0xED0CDAED
	boltVersion = 2
	noFreelist  = ^uint64(0)
	maxDepth    = 64 // deeper than any tree that fits on a disk; ends walks around a cycle
)

// boltMeta has the fields of a meta page.
type boltMeta struct {
	pageSize                   uint64
	root, freelist, high, txid uint64
}

// checker walks one file.
type checker struct {
	file io.ReaderAt
	size uint64
	meta boltMeta
	used map[uint64]bool // pages that have an owner

	schema    []byte
	buckets   map[string]bool // top-level buckets seen
	schemaErr error           // of the first entry that our schema does not have

	stored, found head // of the records: as stored in the file, as counted
}

// bounds limit the next key of a bucket: it is greater than last and not less than least.
type bounds struct{ last, least []byte }

// admit moves the bounds to key, and returns false if they exclude it.
func (b *bounds) admit(key []byte) bool {
	if len(key) == 0 || bytes.Compare(key, b.last) <= 0 || bytes.Compare(key, b.least) < 0 {
		return false
	}
	b.last = key
	return true
}

// check reads the whole file and returns nil if it is an intact ledger of our schema. Errors match [store.ErrCorrupt], [store.ErrNewer],
// or neither if the file could not be read.
func check(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	x := &checker{file: file, size: uint64(info.Size()), used: map[uint64]bool{}, buckets: map[string]bool{}}
	if err := x.readMeta(); err != nil {
		return err
	}
	if err := x.freelist(); err != nil {
		return err
	}
	if err := x.page(x.meta.root, "", 0, &bounds{}); err != nil {
		return err
	}
	return x.checkSchema() // a page that is neither used nor free takes room, and harms nothing
}

// corrupt returns an error that matches [store.ErrCorrupt].
func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", store.ErrCorrupt, fmt.Sprintf(format, args...))
}

// checkSchema checks the version and the counts that the walk has found.
func (x *checker) checkSchema() error {
	version, err := strconv.Atoi(string(x.schema))
	if err != nil || version < 1 {
		return corrupt("not a ledger of this plugin, it has no schema version")
	}
	if version > schemaVersion {
		return fmt.Errorf("%w: it has schema %d, this version knows %d", store.ErrNewer, version, schemaVersion)
	}
	if !x.buckets[bucketMeta] || !x.buckets[bucketRecords] {
		return corrupt("a bucket is missing")
	}
	if x.schemaErr != nil {
		return x.schemaErr
	}
	if x.found.count != x.stored.count || x.found.sums != x.stored.sums || x.found.rev > x.stored.rev {
		return corrupt("it has %d of %d records, or others", x.found.count, x.stored.count)
	}
	return nil
}

// readMeta finds the newer of the two meta pages that is intact. One torn page is a crash that bbolt survives. The second page is one page
// size further, and only the first one has that size, so all sizes are tried.
func (x *checker) readMeta() error {
	if x.size < 2*1024 {
		return corrupt("%d bytes are too few", x.size)
	}
	found := false
	try := func(offset uint64) error {
		m, ok, err := x.metaAt(offset)
		if err != nil || !ok || (found && m.txid < x.meta.txid) {
			return err
		}
		x.meta, found = m, true
		return nil
	}
	if err := try(0); err != nil {
		return err
	}
	for size := uint64(1024); size <= 64<<10 && size+pageHeader+metaLen <= x.size; size *= 2 {
		if found && size != x.meta.pageSize {
			continue
		}
		if err := try(size); err != nil {
			return err
		}
	}
	switch m := x.meta; {
	case !found:
		return corrupt("not a ledger file, it has no valid head")
	case m.high < 3 || m.high > x.size/m.pageSize:
		return corrupt("%d bytes, but it should have %d pages of %d bytes", x.size, m.high, m.pageSize)
	}
	return nil
}

// metaAt reads the meta page at offset; ok is false if there is none or it is torn.
func (x *checker) metaAt(offset uint64) (m boltMeta, ok bool, err error) {
	raw := make([]byte, pageHeader+metaLen)
	if _, err := x.file.ReadAt(raw, int64(offset)); err != nil {
		return m, false, fmt.Errorf("read head: %w", err)
	}
	raw = raw[pageHeader:]
	u32, u64 := binary.NativeEndian.Uint32, binary.NativeEndian.Uint64
	sum := fnv.New64a()
	sum.Write(raw[:56])
	if u32(raw) != boltMagic || u32(raw[4:]) != boltVersion || u64(raw[56:]) != sum.Sum64() {
		return m, false, nil
	}
	m = boltMeta{pageSize: uint64(u32(raw[8:])), root: u64(raw[16:]), freelist: u64(raw[32:]), high: u64(raw[40:]),
		txid: u64(raw[48:])}
	sane := m.pageSize >= 1024 && m.pageSize <= 64<<10 && m.pageSize&(m.pageSize-1) == 0
	return m, sane, nil
}

// read returns the page with its overflow, its flags and its number of elements, and marks it as used: a second reference to it is an
// error.
func (x *checker) read(id uint64) (page []byte, flags uint16, count int, err error) {
	if id < 2 || id >= x.meta.high {
		return nil, 0, 0, corrupt("page %d does not exist", id)
	}
	head := make([]byte, pageHeader)
	if _, err := x.file.ReadAt(head, int64(id*x.meta.pageSize)); err != nil {
		return nil, 0, 0, fmt.Errorf("read page %d: %w", id, err)
	}
	flags = binary.NativeEndian.Uint16(head[8:])
	count = int(binary.NativeEndian.Uint16(head[10:]))
	pages := uint64(binary.NativeEndian.Uint32(head[12:])) + 1
	if binary.NativeEndian.Uint64(head) != id || pages > x.meta.high-id {
		return nil, 0, 0, corrupt("page %d: wrong head", id)
	}
	for p := id; p < id+pages; p++ {
		if x.used[p] {
			return nil, 0, 0, corrupt("page %d: used twice", p)
		}
		x.used[p] = true
	}
	page = make([]byte, pages*x.meta.pageSize)
	if _, err := x.file.ReadAt(page, int64(id*x.meta.pageSize)); err != nil {
		return nil, 0, 0, fmt.Errorf("read page %d: %w", id, err)
	}
	return page, flags, count, nil
}

// freelist marks the free pages as used, so that a reference to one is an error.
func (x *checker) freelist() error {
	if x.meta.freelist == noFreelist {
		return nil
	}
	page, flags, count, err := x.read(x.meta.freelist)
	if err != nil {
		return err
	}
	ids := page[pageHeader:]
	n := uint64(count)
	if count == 0xFFFF { // the real number comes first
		n, ids = binary.NativeEndian.Uint64(ids), ids[8:]
	}
	if flags != flagFreelist || n > uint64(len(ids)/8) {
		return corrupt("page %d: not a list of free pages", x.meta.freelist)
	}
	for i := range n {
		id := binary.NativeEndian.Uint64(ids[8*i:])
		if x.used[id] || id < 2 || id >= x.meta.high {
			return corrupt("free page %d: not free", id)
		}
		x.used[id] = true
	}
	return nil
}

// page walks the tree under page id, which belongs to bucket ("" is the top).
func (x *checker) page(id uint64, bucket string, depth int, b *bounds) error {
	if depth > maxDepth {
		return corrupt("page %d: the tree is too deep", id)
	}
	page, flags, count, err := x.read(id)
	if err != nil {
		return err
	}
	switch {
	case flags == flagBranch && count > 0:
		err = x.branch(page, count, bucket, depth, b)
	case flags == flagLeaf:
		err = x.leaf(page, count, bucket, depth, b)
	default:
		return corrupt("page %d: wrong type", id)
	}
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

// branch walks the children of a branch page.
func (x *checker) branch(page []byte, count int, bucket string, depth int, b *bounds) error {
	for i := range count {
		at := pageHeader + i*branchElem
		elem, ok := slice(page, uint64(at), branchElem)
		if !ok {
			return corrupt("too many children")
		}
		u32 := binary.NativeEndian.Uint32
		key, ok := slice(page, uint64(at)+uint64(u32(elem)), uint64(u32(elem[4:])))
		if !ok || bytes.Compare(key, b.last) <= 0 || bytes.Compare(key, b.least) < 0 {
			return corrupt("wrong key of child %d", i)
		}
		b.least = key
		if err := x.page(binary.NativeEndian.Uint64(elem[8:]), bucket, depth+1, b); err != nil {
			return err
		}
	}
	return nil
}

// leaf checks the entries of a leaf page, or of the leaf page inside a small bucket's value.
func (x *checker) leaf(page []byte, count int, bucket string, depth int, b *bounds) error {
	for i := range count {
		at := pageHeader + i*leafElem
		elem, ok := slice(page, uint64(at), leafElem)
		if !ok {
			return corrupt("too many entries")
		}
		u32 := binary.NativeEndian.Uint32
		keyAt, keyLen := uint64(at)+uint64(u32(elem[4:])), uint64(u32(elem[8:]))
		key, okKey := slice(page, keyAt, keyLen)
		value, okValue := slice(page, keyAt+keyLen, uint64(u32(elem[12:])))
		if !okKey || !okValue || !b.admit(key) {
			return corrupt("wrong entry %d", i)
		}
		if err := x.entry(bucket, string(key), value, u32(elem)&flagBucket != 0, depth); err != nil {
			return err
		}
	}
	return nil
}

// entry checks one key with its value. An entry that our schema does not have is an error only if the schema is not a newer one.
func (x *checker) entry(bucket, key string, value []byte, isBucket bool, depth int) error {
	if isBucket != (bucket == "") {
		x.note(corrupt("%s %q: wrong kind of entry", bucket, key))
	}
	switch {
	case isBucket && bucket == "":
		x.buckets[key] = true
		return x.bucket(key, value, depth)
	case isBucket:
		return x.bucket(bucket+"/"+key, value, depth)
	case bucket == bucketMeta && key == metaSchema:
		x.schema = value
	case bucket == bucketMeta && key == metaHead:
		var err error
		x.stored, err = decodeHead(value)
		x.note(err)
	case bucket == bucketRecords:
		kv, err := unframe(key, value)
		if err != nil {
			x.note(err)
			return nil
		}
		x.found.add(value)
		x.found.rev = max(x.found.rev, kv.Rev)
	}
	return nil
}

// note keeps the first error that matters only for our schema.
func (x *checker) note(err error) {
	if x.schemaErr == nil {
		x.schemaErr = err
	}
}

// bucket walks a bucket: its own pages, or one leaf page inside the value if it is small.
func (x *checker) bucket(name string, value []byte, depth int) error {
	if len(value) < bucketHead || depth > maxDepth {
		return corrupt("bucket %q: too short or too deep", name)
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return x.page(root, name, depth+1, &bounds{})
	}
	inline := value[bucketHead:]
	if len(inline) < pageHeader || binary.NativeEndian.Uint16(inline[8:]) != flagLeaf {
		return corrupt("bucket %q: wrong page inside", name)
	}
	return x.leaf(inline, int(binary.NativeEndian.Uint16(inline[10:])), name, depth+1, &bounds{})
}

// slice returns raw[at:at+n], or false if that is not inside raw.
func slice(raw []byte, at, n uint64) ([]byte, bool) {
	if at > uint64(len(raw)) || n > uint64(len(raw))-at {
		return nil, false
	}
	return raw[at : at+n], true
}
