package engineapi

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Exec runs a program in a container, which has to end well, and returns what it wrote, without white space at the ends. The error
// has what it wrote to stderr.
func (c Client) Exec(container string, args ...string) (string, error) {
	var made struct{ ID string }
	body, err := c.Ask(http.MethodPost, "/containers/"+container+"/exec",
		map[string]any{"AttachStdout": true, "AttachStderr": true, "Cmd": args})
	if err == nil {
		err = json.Unmarshal(body, &made)
	}
	if err != nil {
		return "", err
	}
	stream, err := c.Ask(http.MethodPost, "/exec/"+made.ID+"/start", map[string]any{})
	if err != nil {
		return "", err
	}
	out, errs, err := split(stream)
	if err != nil {
		return out, err
	}
	var ended struct{ ExitCode *int }
	if err := c.Read("/exec/"+made.ID+"/json", &ended); err != nil {
		return out, err
	}
	if ended.ExitCode == nil || *ended.ExitCode != 0 {
		return out, fmt.Errorf("%s: %s", strings.Join(args, " "), errs)
	}
	return out, nil
}

// split tells apart what a program has written to its two outputs: each piece comes with a header of eight bytes, the first of
// which says which it is, and the last four how long the piece is.
func split(stream []byte) (out, errs string, err error) {
	const header, stderr = 8, 2
	var pieces [3]strings.Builder
	for len(stream) > 0 {
		if len(stream) < header || int(stream[0]) >= len(pieces) {
			return "", "", errors.New("exec: what came is no piece of an output")
		}
		n := int(binary.BigEndian.Uint32(stream[4:header]))
		if n > len(stream)-header {
			return "", "", errors.New("exec: a piece of an output is cut off")
		}
		pieces[stream[0]].Write(stream[header : header+n])
		stream = stream[header+n:]
	}
	return strings.TrimSpace(pieces[1].String()), strings.TrimSpace(pieces[stderr].String()), nil
}
