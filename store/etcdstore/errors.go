package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mellanox/passthrough/internal/credential"
	"github.com/mellanox/passthrough/store"
)

// A callError says what was attempted in which etcd and why it failed. It matches kind and cause.
type callError struct {
	config      *Config
	attempt     string
	kind, cause error
}

// Error is "ledger in etcd HOSTS: attempt: why; remedy".
func (e *callError) Error() string {
	text := fmt.Sprintf("ledger in etcd %s: %s: %s", strings.Join(e.config.Endpoints, ","), e.attempt, e.why())
	if remedy := e.remedy(); remedy != "" {
		text += "; " + remedy
	}
	return text
}

// Unwrap returns the sentinels and the cause.
func (e *callError) Unwrap() []error {
	var errs []error
	for _, err := range []error{e.kind, e.cause} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	if errors.Is(e.cause, rpctypes.ErrNoSpace) {
		errs = append(errs, store.ErrNoSpace)
	}
	return errs
}

// why returns the cause without the text that gRPC puts around it.
func (e *callError) why() string {
	if text, ok := transportError(e.cause); ok {
		return text
	}
	switch {
	case e.cause == nil:
		return e.kind.Error()
	case isTimeout(e.cause):
		return "no answer in time"
	}
	text := e.cause.Error()
	if s, ok := status.FromError(e.cause); ok {
		text = s.Message()
	}
	return strings.TrimPrefix(text, "etcdserver: ")
}

// transportError returns the part of an error that says why there is no connection; ok is false if there is none.
func transportError(err error) (string, bool) {
	s, ok := status.FromError(err)
	if !ok || err == nil {
		return "", false
	}
	_, quoted, ok := strings.Cut(s.Message(), "connection error: desc = ")
	text, err := strconv.Unquote(quoted)
	if !ok || err != nil {
		return "", false
	}
	for _, words := range []string{"transport: ", "Error while dialing: ", "authentication handshake failed: ",
		"error reading server preface: "} {
		text = strings.TrimPrefix(text, words)
	}
	return text, true
}

// remedy returns what the user can do, "" for nothing.
func (e *callError) remedy() string {
	var file *fileError
	switch {
	case errors.Is(e.cause, store.ErrClosed), errors.Is(e.cause, context.Canceled), errors.Is(e.cause, store.ErrCorrupt):
		return ""
	case errors.Is(e.cause, store.ErrNewer):
		return "upgrade the plugin on this node"
	case errors.Is(e.cause, store.ErrRolledBack):
		return "it seems to be restored from a backup, which may show addresses as free that are in use; once that is " +
			"put right, tell this node with driver accept"
	case errors.Is(e.cause, credential.ErrOpenToAll):
		return "set its mode to 0600"
	case errors.As(e.cause, &file):
		return "put the file into the plugin's state directory, or correct STORE"
	}
	return e.remedyForCode()
}

// remedyForCode returns what the user can do about a status code of etcd or gRPC.
func (e *callError) remedyForCode() string {
	why, _ := transportError(e.cause)
	switch code := codeOf(e.cause); {
	case strings.Contains(why, "tls: "), strings.Contains(why, "x509: "): // gRPC makes text of every error
		return "check ca, cert and key of STORE"
	case why == "EOF" && e.config.CA == "":
		return "if etcd speaks TLS, STORE needs ca"
	case errors.Is(e.cause, rpctypes.ErrTooManyOps), errors.Is(e.cause, rpctypes.ErrRequestTooLarge):
		return "raise --max-txn-ops and --max-request-bytes of etcd"
	case code == codes.PermissionDenied, code == codes.Unauthenticated, code == codes.InvalidArgument:
		return fmt.Sprintf("check user and password-file of STORE, and that this user may read and write everything under %q",
			e.config.Prefix+"/")
	case code == codes.ResourceExhausted:
		return "compact and defragment etcd or raise its quota, then disarm its alarm"
	case errors.Is(e.kind, store.ErrAmbiguous):
		return "it may or may not have been done; check that etcd runs and can be reached from this host"
	default:
		return "check that etcd runs and can be reached from this host; running containers are not affected"
	}
}

// refused returns true for an error that says that etcd refused the credentials of the client, or that the client refused the certificate of
// etcd or the other way round.
func refused(err error) bool {
	if why, ok := transportError(err); ok {
		return strings.Contains(why, "tls: ") || strings.Contains(why, "x509: ")
	}
	switch codeOf(err) {
	case codes.Unauthenticated, codes.PermissionDenied, codes.InvalidArgument:
		return true
	case codes.FailedPrecondition: // the user was made anew without a password, or authentication was switched off
		return errors.Is(err, rpctypes.ErrAuthNotEnabled)
	}
	return false
}

// codeOf returns the status code of etcd's answer, or of gRPC if there was none.
func codeOf(err error) codes.Code {
	var answer rpctypes.EtcdError
	if errors.As(err, &answer) {
		return answer.Code()
	}
	for err != nil {
		if s, ok := status.FromError(err); ok {
			return s.Code()
		}
		err = errors.Unwrap(err)
	}
	return codes.OK
}
