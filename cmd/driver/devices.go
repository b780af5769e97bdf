package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// devicesFile is a file in the state directory in which an administrator may name devices: lines of NAME=DEVICE,DEVICE..., and comments
// after a #.
const devicesFile = "devices"

// deviceName matches the names that devices can be given. None looks like a PCI address, a PCI ID or a pattern.
var deviceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// parseDevices reads NAME=DEVICE,DEVICE..., separated by ; or newlines, into the devices by name.
func parseDevices(text string) (map[string][]string, error) {
	named := map[string][]string{}
	for _, line := range strings.FieldsFunc(text, func(r rune) bool { return r == ';' || r == '\n' }) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		name, list, ok := strings.Cut(line, "=")
		name = strings.TrimSpace(name)
		switch {
		case !ok || !deviceName.MatchString(name):
			return nil, fmt.Errorf("devices: %q is not NAME=DEVICE,DEVICE", line)
		case named[name] != nil:
			return nil, fmt.Errorf("devices: %s is there twice", name)
		}
		for _, d := range strings.Split(list, ",") {
			if d = strings.TrimSpace(d); d == "" {
				return nil, fmt.Errorf("devices: %s has an empty device in %q", name, list)
			}
			named[name] = append(named[name], d)
		}
	}
	return named, nil
}

// devices returns the devices that the variable DEVICES and the file name. It reads the file at each call, so that a change needs no
// restart.
func (c config) devices() (map[string][]string, error) {
	named, err := parseDevices(c.deviceNames)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(c.stateDir, devicesFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return named, nil
	}
	if err != nil {
		return nil, fmt.Errorf("devices: %w", err)
	}
	more, err := parseDevices(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for name, list := range more {
		if named[name] != nil {
			return nil, fmt.Errorf("%s: devices: %s is in the variable DEVICES as well", path, name)
		}
		named[name] = list
	}
	return named, nil
}
