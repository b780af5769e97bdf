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

// devicesFile is where an administrator may name devices, in the state directory: a line of NAME=DEVICE,DEVICE... each;
// what follows a # is for people.
const devicesFile = "devices"

// deviceName is what devices can be called. It cannot be taken for a PCI address, a PCI ID or a pattern.
var deviceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// parseDevices reads names of devices, separated by ; or the ends of lines.
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

// devices are the names that the environment and the file have given to devices. The file is read anew each time, so that
// a change needs no restart.
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
