// Package dashboard draws what the panels of deploy/grafana-dashboard.json show of a run in the lab: docs/dashboard.svg. It is drawn here and not
// by Grafana, which no Debian release has.
package dashboard
