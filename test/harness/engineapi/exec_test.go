package engineapi

import "testing"

// TestSplit: the pieces of both outputs alternate, and one that is cut off is an error.
func TestSplit(t *testing.T) {
	const pieces = "\x01\x00\x00\x00\x00\x00\x00\x03one\x02\x00\x00\x00\x00\x00\x00\x03bad\x01\x00\x00\x00\x00\x00\x00\x05 two\n"
	out, errs, err := split([]byte(pieces))
	if out != "one two" || errs != "bad" || err != nil {
		t.Errorf("they are %q and %q, %v", out, errs, err)
	}
	for _, cut := range []int{1, 9, len(pieces) - 1} {
		if _, _, err := split([]byte(pieces[:cut])); err == nil {
			t.Errorf("%d bytes of it are all of it", cut)
		}
	}
	if _, _, err := split([]byte("\x03" + pieces[1:])); err == nil {
		t.Error("there is a third output")
	}
}
