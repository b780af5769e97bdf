package main

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
)

// guarded runs one call and turns a panic in it into an answer. Without it the connection would just end, and the
// engine would repeat the call, with an empty body, for 15 seconds.
func guarded(ctx context.Context, rt route, body []byte) (a answer) {
	defer func() {
		if v := recover(); v != nil {
			a = answer{
				status:  http.StatusInternalServerError,
				outcome: outcomePanic,
				err:     fmt.Errorf("the plugin panicked: %v; this is a bug, its stack is in the plugin's log", v),
				stack:   string(debug.Stack()),
			}
		}
	}()
	out, err := rt.call(ctx, body)
	return answerOf(out, err)
}
