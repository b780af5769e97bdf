package addr

import (
	"maps"
	"math/bits"
)

// A Bitmap is a sparse set of numbers, made to find the next number that is not in it: the indexes of the addresses of a pool that are
// taken. Any operation takes a few look-ups in a map, however large the pool is and however full.
//
// It is a tree of 64-bit words. A bit of level 0 says that a number is in the set; a bit of level k says that the word of level k-1 below it
// is full. A word that is empty or full is not stored: the bit of the level above is enough. So an empty or a full pool of 2^64 addresses
// takes no memory, and one with a few holes almost none.
type Bitmap struct {
	level [levels]map[uint64]uint64
	// root is the word on top. It has 2^64/64^(levels-1) = 16 words below it; the bits of those that do not exist are set.
	root uint64
	n    uint64
}

const (
	levels    = 10
	wordBits  = 6 // log2 of the bits of a word
	wordMask  = 1<<wordBits - 1
	full      = ^uint64(0)
	emptyRoot = full &^ (1<<16 - 1)
)

// NewBitmap returns the empty set.
func NewBitmap() *Bitmap { return &Bitmap{root: emptyRoot} }

// Len returns how many numbers are in the set.
func (s *Bitmap) Len() uint64 { return s.n }

// Words returns how many words the set stores.
func (s *Bitmap) Words() (n int) {
	for _, l := range s.level {
		n += len(l)
	}
	return n
}

// Equal returns true if both sets have the same numbers. Equal sets store the same words, because neither stores a word that it need not.
func (s *Bitmap) Equal(o *Bitmap) bool {
	for k := range s.level {
		if !maps.Equal(s.level[k], o.level[k]) {
			return false
		}
	}
	return s.n == o.n && s.root == o.root
}

// path returns, for each level, the word that number x belongs to; path[levels] is the root.
func (s *Bitmap) path(x uint64) (words [levels + 1]uint64) {
	words[levels] = s.root
	for k := levels - 1; k >= 0; k-- {
		if w, ok := s.level[k][wordIndex(x, k)]; ok {
			words[k] = w
		} else if words[k+1]&bitOf(x, k+1) != 0 {
			words[k] = full
		}
	}
	return words
}

// wordIndex returns the index of x's word in level k.
func wordIndex(x uint64, k int) uint64 { return x >> (wordBits * (k + 1)) }

// bitIndex returns the position of x's bit in its word of level k.
func bitIndex(x uint64, k int) uint { return uint(x>>(wordBits*k)) & wordMask }

// bitOf returns x's bit in its word of level k.
func bitOf(x uint64, k int) uint64 { return 1 << bitIndex(x, k) }

// put stores x's word of level k.
func (s *Bitmap) put(x uint64, k int, word uint64) {
	if k == levels {
		s.root = word
		return
	}
	if word == 0 || word == full {
		delete(s.level[k], wordIndex(x, k))
		return
	}
	if s.level[k] == nil {
		s.level[k] = map[uint64]uint64{}
	}
	s.level[k][wordIndex(x, k)] = word
}

// Has returns true if x is in the set.
func (s *Bitmap) Has(x uint64) bool { return s.path(x)[0]&bitOf(x, 0) != 0 }

// Add adds x to the set, and returns false if it was in it.
func (s *Bitmap) Add(x uint64) bool {
	words := s.path(x)
	if words[0]&bitOf(x, 0) != 0 {
		return false
	}
	s.n++
	for k := 0; k <= levels; k++ {
		word := words[k] | bitOf(x, k)
		s.put(x, k, word)
		if word != full {
			break
		}
	}
	return true
}

// Remove removes x from the set, and returns false if it was not in it.
func (s *Bitmap) Remove(x uint64) bool {
	words := s.path(x)
	if words[0]&bitOf(x, 0) == 0 {
		return false
	}
	s.n--
	for k := 0; k <= levels; k++ {
		s.put(x, k, words[k]&^bitOf(x, k))
		if words[k] != full {
			break // the level above did not count this word as full
		}
	}
	return true
}

// NextFree returns the smallest number from lo to hi that is not in the set; ok is false if there is none.
func (s *Bitmap) NextFree(lo, hi uint64) (x uint64, ok bool) {
	if lo > hi {
		return 0, false
	}
	words := s.path(lo)
	from := bitIndex(lo, 0) // the first bit to check; above level 0 the one after the word that was just searched
	for k := 0; k <= levels; k++ {
		if zeros := ^words[k] >> from; zeros != 0 {
			bit := uint64(from) + uint64(bits.TrailingZeros64(zeros))
			x = s.descend(wordIndex(lo, k)<<wordBits|bit, k)
			return x, x <= hi
		}
		from = bitIndex(lo, k+1) + 1
	}
	return 0, false
}

// descend returns the smallest free number below bit i of level k. The bit is not set, so that the word below it is not full.
func (s *Bitmap) descend(i uint64, k int) uint64 {
	for ; k > 0; k-- {
		i = i<<wordBits | uint64(bits.TrailingZeros64(^s.level[k-1][i]))
	}
	return i
}
