package rtnl

import (
	"errors"
	"os"
	"path/filepath"
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

// TestNoNamespace: an RDMA device is moved to no file that is not that of a network namespace, such as one that the engine is still to mount it on.
func TestNoNamespace(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "ns"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := (RDMA{}).Move(1, file); !errors.Is(err, hw.ErrNotFound) {
		t.Errorf("moved: %v", err)
	}
}
