// Package promtest runs Debian's Prometheus, and asks it what the panels of deploy/grafana-dashboard.json show.
package promtest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mellanox/passthrough/test/harness/dockertest"
)

// address is where Prometheus answers.
const address = "127.0.0.1:9090"

// A Panel is one of the dashboard's.
type Panel struct {
	Type, Title string
	FieldConfig struct {
		Defaults struct{ Unit string }
	}
	Options struct{ TextMode string } // "name": the legend is shown and not the value
	Targets []struct{ Expr, LegendFormat string }
}

// A Series is what an expression was over a time.
type Series struct {
	Metric map[string]string
	Points []Point
}

// A Point is a value at a time.
type Point struct {
	At    time.Time
	Value float64
}

// Promtool runs promtool, which test/run has unpacked in the repository, and which must succeed.
func Promtool(t testing.TB, repository string, args ...string) {
	t.Helper()
	dockertest.Run(t, filepath.Join(programs(repository), "promtool"), args...)
}

func programs(repository string) string { return filepath.Join(repository, ".cache/prometheus/bin") }

// Start runs Prometheus with the alerts of the repository. It scrapes the targets, each an element of static_configs, as often as interval says.
func Start(t testing.TB, repository, interval string, targets ...string) {
	t.Helper()
	rules, err := filepath.Abs(filepath.Join(repository, "deploy/prometheus-rules.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("global: {scrape_interval: %s, scrape_timeout: %[1]s, evaluation_interval: %[1]s}\nrule_files: [%q]\nscrape_configs:\n"+
		"  - {job_name: passthrough, static_configs: [%s]}\n", interval, rules, strings.Join(targets, ", "))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	Promtool(t, repository, "check", "config", config)
	dockertest.StartProgram(t, exec.Command(filepath.Join(programs(repository), "prometheus"), "--config.file="+config,
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address, "--log.level=warn"))
}

// Panels returns the panels of the dashboard, with the expressions that Grafana sends for all machines. rate is the interval over which rates are
// taken, such as 1m.
func Panels(t testing.TB, repository, rate string) []Panel {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, "deploy/grafana-dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var d struct{ Panels []Panel }
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Panels) == 0 {
		t.Fatal("the dashboard has no panel")
	}
	for _, p := range d.Panels {
		for i := range p.Targets {
			p.Targets[i].Expr = strings.NewReplacer("$instance", ".*", "$__rate_interval", rate).Replace(p.Targets[i].Expr)
		}
	}
	return d.Panels
}

// Get returns the body of the answer 200.
func Get(address string) (string, error) {
	answer, err := http.Get(address)
	if err != nil {
		return "", err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, body)
	}
	return string(body), err
}

// At returns the series of an expression at a time, zero for now, each with one point.
func At(expression string, at time.Time) ([]Series, error) {
	query := url.Values{"query": {expression}}
	if !at.IsZero() {
		query.Set("time", at.Format(time.RFC3339Nano))
	}
	return ask("query", query)
}

// Over returns the series of an expression over a time, with a point for each step.
func Over(expression string, from, to time.Time, step time.Duration) ([]Series, error) {
	return ask("query_range", url.Values{"query": {expression}, "start": {from.Format(time.RFC3339Nano)}, "end": {to.Format(time.RFC3339Nano)},
		"step": {step.String()}})
}

// ask returns the series of an answer, which has a point or several for each.
func ask(call string, query url.Values) ([]Series, error) {
	text, err := Get("http://" + address + "/api/v1/" + call + "?" + query.Encode())
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Value  point
				Values []point
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return nil, err
	}
	var all []Series
	for _, r := range answer.Data.Result {
		s := Series{Metric: r.Metric}
		if r.Values == nil {
			r.Values = []point{r.Value}
		}
		for _, p := range r.Values {
			s.Points = append(s.Points, Point(p))
		}
		all = append(all, s)
	}
	return all, nil
}

// point is a Point as Prometheus writes it: [seconds, "value"].
type point Point

func (p *point) UnmarshalJSON(text []byte) error {
	var pair [2]any
	if err := json.Unmarshal(text, &pair); err != nil {
		return err
	}
	seconds, ok1 := pair[0].(float64)
	value, ok2 := pair[1].(string)
	if !ok1 || !ok2 {
		return fmt.Errorf("%s is no point", text)
	}
	p.At = time.UnixMilli(int64(1000 * seconds))
	var err error
	p.Value, err = strconv.ParseFloat(value, 64)
	return err
}

// NoSeries says what is wrong if an expression has no series now, "" if it has.
func NoSeries(expression string) string {
	switch series, err := At(expression, time.Time{}); {
	case err != nil:
		return expression + ": " + err.Error()
	case len(series) == 0:
		return expression + " has no series"
	}
	return ""
}
