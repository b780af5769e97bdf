package etcdstore

import (
	"context"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/mellanox/passthrough/store"
)

// statusTimeout bounds the question to one member.
const statusTimeout = 2 * time.Second

// Servers implements [store.Served]. A user of etcd needs no role for it (etcd 3.6, server/etcdserver/api/v3rpc, authMaintenanceServer).
func (e *etcd) Servers(ctx context.Context) []store.ServerStatus {
	var all []store.ServerStatus
	for i, url := range e.config.urls() {
		all = append(all, e.serverStatus(ctx, e.config.Endpoints[i], url))
	}
	return all
}

// serverStatus asks one member.
func (e *etcd) serverStatus(ctx context.Context, endpoint, url string) store.ServerStatus {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	status := store.ServerStatus{Endpoint: endpoint}
	client, err := e.conn.get(ctx)
	if err != nil {
		status.Err = &callError{config: &e.config, attempt: "status", kind: store.ErrUnavailable, cause: err}
		return status
	}
	answer, err := client.Status(ctx, url)
	if err != nil {
		status.Err = &callError{config: &e.config, attempt: "status of " + endpoint, kind: store.ErrUnavailable, cause: err}
		return status
	}
	status.Version, status.Size, status.InUse, status.Quota = answer.Version, answer.DbSize, answer.DbSizeInUse, answer.DbSizeQuota
	for _, text := range answer.Errors {
		status.Alarms = append(status.Alarms, alarmName(text))
	}
	return status
}

// alarmName returns the name of an alarm in the text that etcd reports, such as "memberID:1234 alarm:NOSPACE", and other texts as they are.
func alarmName(text string) string {
	if _, name, ok := strings.Cut(text, "alarm:"); ok {
		name = strings.TrimSpace(name)
		if _, known := pb.AlarmType_value[name]; known {
			return name
		}
	}
	return text
}
