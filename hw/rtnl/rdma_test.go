package rtnl

import (
	"errors"
	"testing"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/rdma"
)

// TestRDMA: the running kernel tells its mode and its devices, or that no module for RDMA is loaded.
func TestRDMA(t *testing.T) {
	mode, err := RDMA{}.Mode()
	links, listErr := RDMA{}.Links()
	if errors.Is(err, hw.ErrUnsupported) {
		if !errors.Is(listErr, hw.ErrUnsupported) || links != nil {
			t.Errorf("without a module: %v, %v", links, listErr)
		}
		return
	}
	if err != nil || mode != rdma.Shared && mode != rdma.Exclusive || listErr != nil {
		t.Errorf("%q, %v, %v, %v", mode, err, links, listErr)
	}
}
