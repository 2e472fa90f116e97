#!/usr/bin/env python3
"""Writes l0.json, the Grafana dashboard of l0-prometheus, and the files for Kubernetes.

    docs/grafana/generate.py            # writes l0.json and the generated files of docs/prometheus/kubernetes
    docs/grafana/generate.py --check    # fails if one of them is out of date
"""

import json
import pathlib
import sys

OUTPUT = pathlib.Path(__file__).with_name("l0.json")
PROMETHEUS = OUTPUT.parents[1] / "prometheus"
KUBERNETES = PROMETHEUS / "kubernetes"

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
# For metrics of runs; the collector's own metrics have no labels of runs.
RUNS = 'model=~"$model", endpoint=~"$endpoint", instance=~"$instance"'
INSTANCES = 'instance=~"$instance"'
RANGE = "$__rate_interval"

MEASURED = "Measured runs only, counted when they end."
ATTEMPTS_OF = "By the model that was called, even if another one answered. " + MEASURED
ALL = "All runs that an interceptor sees, measured or not."

# Grafana's units.
SECONDS, SHARE, COUNT = "s", "percentunit", "short"
RUNS_PER_SECOND, TOKENS_PER_SECOND, PER_SECOND = "suffix: runs/s", "suffix: tok/s", "suffix: /s"

OUTCOME_COLORS = {
    "completed": "green",
    "truncated": "yellow",
    "failed": "red",
    "timed_out": "orange",
    "limited": "dark-orange",
    "aborted": "blue",
    "dropped": "purple",
}
SEVERITY_COLORS = {"warning": "yellow", "error": "orange", "fatal": "red"}


# ---- expressions


def rate(metric, by="", more=""):
    """Returns the rate of a counter, summed over all labels except those in `by`."""
    labels = RUNS + (", " + more if more else "")
    return f"sum{by and f' by ({by})'} (rate({metric}{{{labels}}}[{RANGE}]))"


def ratio(over, under):
    return f"{over}\n/\n{under}"


def quantile(q, histogram, by="le"):
    return f"histogram_quantile({q}, {rate(histogram + '_bucket', by)})"


def mean(histogram):
    return ratio(rate(histogram + "_sum"), rate(histogram + "_count"))


# ---- panels


def target(expr, legend, **more):
    return {
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": expr,
        "legendFormat": legend,
        "range": True,
        **more,
    }


def panel(kind, title, description, unit, targets, options, *, custom=None, colors=None, **defaults):
    """A panel without a position and an id; `layout` adds them."""
    for index, one in enumerate(targets):
        one["refId"] = chr(ord("A") + index)
    overrides = [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": color}}],
        }
        for name, color in (colors or {}).items()
    ]
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "fieldConfig": {
            "defaults": {"unit": unit, **defaults, **({"custom": custom} if custom else {})},
            "overrides": overrides,
        },
        "options": options,
        "targets": targets,
    }


def graph(title, description, unit, *targets, stack=None, colors=None, most=None):
    """Lines over time; with `stack`, "normal" or "percent", stacked areas."""
    custom = {
        "drawStyle": "line",
        "fillOpacity": 60 if stack else 8,
        "lineWidth": 1,
        "showPoints": "auto",
        "spanNulls": False,
        "stacking": {"group": "A", "mode": stack or "none"},
    }
    options = {
        "legend": {
            "calcs": ["mean", "max", "lastNotNull"],
            "displayMode": "table",
            "placement": "bottom",
            "showLegend": True,
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    limits = {"min": 0} if most is None else {"min": 0, "max": most}
    return panel(
        "timeseries", title, description, unit, list(targets), options,
        custom=custom, colors=colors, **limits,
    )


def quantiles(title, description, histogram, unit=SECONDS, qs=(0.5, 0.95, 0.99)):
    lines = [target(quantile(q, histogram), f"p{round(q * 100)}") for q in qs]
    return graph(title, description, unit, *lines)


def heat_map(title, description, histogram, unit=SECONDS):
    """The number of observations in each bucket over time."""
    expr = f"sum by (le) (increase({histogram}_bucket{{{RUNS}}}[{RANGE}]))"
    options = {
        "calculate": False,
        "cellGap": 1,
        "cellValues": {"unit": COUNT},
        "color": {
            "exponent": 0.5,
            "fill": "dark-orange",
            "mode": "scheme",
            "reverse": False,
            "scale": "exponential",
            "scheme": "Oranges",
            "steps": 64,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "tooltip": {"mode": "single", "showColorScale": False, "yHistogram": True},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
    }
    custom = {
        "hideFrom": {"legend": False, "tooltip": False, "viz": False},
        "scaleDistribution": {"type": "linear"},
    }
    lines = [target(expr, "{{le}}", format="heatmap")]
    # The unit is that of the axis; the cells are counts.
    return panel("heatmap", title, description, COUNT, lines, options, custom=custom)


def number(title, description, unit, expr, *steps):
    """One large number; `steps` are the values from which it is yellow, then red."""
    colors = zip(("green", "yellow", "red"), (None, *steps), strict=False)
    options = {
        "colorMode": "value",
        "graphMode": "area",
        "justifyMode": "auto",
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": "auto",
    }
    thresholds = {
        "mode": "absolute",
        "steps": [{"color": color, "value": value} for color, value in colors],
    }
    lines = [target(expr, "__auto")]
    return panel("stat", title, description, unit, lines, options, thresholds=thresholds)


# ---- the dashboard: rows of panels with their widths, out of 24

FAILED = 'outcome=~"failed|timed_out|truncated|limited"'
FAILED_ATTEMPTS = 'result=~"failed|timed_out|truncated|limited"'
TTFT = "l0_time_to_first_token_seconds"
GAP = "l0_inter_token_seconds"
DURATION = "l0_request_duration_seconds"
MAX_GAP = "l0_stream_max_gap_seconds"
SPEED = "l0_output_tokens_per_second"
REQUESTS = rate("l0_requests_total")

OVERVIEW = [
    (4, number(
        "Runs finished", f"Runs that ended per second, with any outcome. {ALL}", RUNS_PER_SECOND,
        rate("l0_streams_finished_total"))),
    (4, number(
        "Failure share",
        f"Runs that failed, timed out, were truncated or reached a limit, out of all that ended. "
        f"{ALL}", SHARE,
        ratio(rate("l0_streams_finished_total", more=FAILED), rate("l0_streams_finished_total")),
        0.05, 0.25)),
    (4, number(
        "Time to first token, p95",
        f"From the start of a run, retries included, to its first token. {MEASURED}", SECONDS,
        quantile(0.95, TTFT), 5, 10)),
    (4, number(
        "Gap between tokens, p95",
        f"Between two tokens of one attempt, over all gaps. {MEASURED}", SECONDS,
        quantile(0.95, GAP), 0.25, 1)),
    (4, number(
        "Speed of a run, p50",
        f"Tokens per second while tokens flow: half of the runs are slower. {MEASURED}",
        TOKENS_PER_SECOND, quantile(0.5, SPEED))),
    (4, number(
        "Active streams", f"Runs that have started and not finished. {ALL}", COUNT,
        f"sum (l0_streams_active{{{RUNS}}})")),
]

ALL_RUNS = [
    (12, graph(
        "Runs started and finished",
        f"If the lines diverge, runs pile up: check the active streams. {ALL}",
        RUNS_PER_SECOND,
        target(rate("l0_streams_started_total"), "started"),
        target(rate("l0_streams_finished_total"), "finished"))),
    (12, graph(
        "Request rate by model",
        f"By the model that answered or was tried last. Lower than the finished runs if monitoring "
        f"samples. {MEASURED}", RUNS_PER_SECOND,
        target(rate("l0_requests_total", "model"), "{{model}}"), stack="normal")),
    (8, graph(
        "Error rate by outcome",
        f"Runs that were not completed. {ALL}", RUNS_PER_SECOND,
        target(rate("l0_streams_finished_total", "outcome", 'outcome!="completed"'), "{{outcome}}"),
        stack="normal", colors=OUTCOME_COLORS)),
    (8, graph(
        "Share of each outcome",
        f"Aborted: stopped on request. Dropped: the consumer dropped the run. {ALL}", SHARE,
        target(
            ratio(rate("l0_streams_finished_total", "outcome"),
                  "ignoring (outcome) group_left ()\n" + rate("l0_streams_finished_total")),
            "{{outcome}}"),
        stack="normal", colors=OUTCOME_COLORS, most=1)),
    (8, graph(
        "Failure share by model",
        f"Failed, timed out, truncated or limited runs, out of all that ended, by the model that was "
        f"called first. {ALL}", SHARE,
        target(
            ratio(rate("l0_streams_finished_total", "model", FAILED),
                  rate("l0_streams_finished_total", "model")),
            "{{model}}"))),
    (12, graph(
        "Failures by error type",
        f"The reason: a status, the type of a network error, or a failure on the application's side. A "
        f"type appears with its first failure, which rate does not see. {ALL}", RUNS_PER_SECOND,
        target(rate("l0_failures_total", "error_type"), "{{error_type}}"), stack="normal")),
    (12, graph(
        "Failures by model and error type",
        f"The ten most frequent pairs: do all models fail in the same way, or only one? By the model "
        f"that was tried last. {ALL}", RUNS_PER_SECOND,
        target(
            f"topk(10, {rate('l0_failures_total', 'model, error_type')})",
            "{{model}} {{error_type}}"))),
    (6, graph(
        "Active streams by model", f"Runs that have started and not finished. {ALL}", COUNT,
        target(f"sum by (model) (l0_streams_active{{{RUNS}}})", "{{model}}"), stack="normal")),
    (6, graph(
        "Active streams by instance",
        f"If one instance grows and the others do not, its runs hang. {ALL}", COUNT,
        target(f"sum by (instance) (l0_streams_active{{{RUNS}}})", "{{instance}}"))),
    (6, graph(
        "Oldest live run by model",
        f"A line that rises by a second per second is a hanging run, even if others end. {ALL}", SECONDS,
        target(f"max by (model) (l0_stream_oldest_seconds{{{RUNS}}})", "{{model}}"))),
    (6, graph(
        "Stalled streams by model",
        f"Live runs with a silent source whose consumer is waiting. Absent unless stalls are counted. "
        f"Measured runs only.", COUNT,
        target(f"sum by (model) (l0_streams_stalled{{{RUNS}}})", "{{model}}"), stack="normal")),
]

LATENCY = [
    (12, quantiles(
        "Time to first token",
        f"From the start of a run, retries included, to its first token. {MEASURED}", TTFT)),
    (12, heat_map(
        "Time to first token, heat map",
        f"Runs by their time to first token. Two bands are two kinds of runs: two models, or with and "
        f"without a retry. {MEASURED}", TTFT)),
    (12, quantiles(
        "Gap between tokens",
        f"Between two tokens of one attempt, over all gaps of all runs, so long answers weigh more. "
        f"{MEASURED}", GAP)),
    (12, heat_map(
        "Gap between tokens, heat map",
        f"Gaps by their length. A gap up to 4 % below a bound can be in the bucket above. "
        f"{MEASURED}", GAP)),
    (12, quantiles(
        "Longest gap of a run",
        f"The longest gap between two tokens of each run: how long streams stall. {MEASURED}",
        MAX_GAP)),
    (12, heat_map(
        "Longest gap of a run, heat map",
        f"Runs by their longest gap. A band far above the others is a stall. {MEASURED}", MAX_GAP)),
    (12, graph(
        "Duration",
        f"From start to end, for every outcome. The mean is exact; quantiles are estimated from "
        f"buckets. {MEASURED}", SECONDS,
        *[target(quantile(q, DURATION), f"p{round(q * 100)}") for q in (0.5, 0.95, 0.99)],
        target(mean(DURATION), "mean"))),
    (12, graph(
        "Consumer hold",
        f"The share of the duration in which a run had an item and its consumer did not poll for the "
        f"next. If it is high, the application or its client is slow, not the model. {MEASURED}", SHARE,
        target(
            ratio(rate("l0_consumer_hold_seconds_total", "model"),
                  rate(DURATION + "_sum", "model")),
            "{{model}}"))),
]

TOKENS = [
    (12, quantiles(
        "Output tokens per second of a run",
        f"The rate while tokens flow, without the time to first token and back-off. p5 is the slow end. "
        f"From the histogram, so it is right over many instances; the gauge l0_tokens_per_second is "
        f"not. {MEASURED}",
        SPEED, TOKENS_PER_SECOND, (0.05, 0.5, 0.95))),
    (12, graph(
        "Total tokens per second",
        f"Over all runs, wasted tokens included. One item of a stream is one token; tokens are counted "
        f"when a run ends. {MEASURED}", TOKENS_PER_SECOND,
        target(rate("l0_tokens_total", "model"), "{{model}}"), stack="normal")),
    (12, graph(
        "Wasted tokens",
        f"The share of a model's tokens in attempts that a retry or a fallback discarded. "
        f"{MEASURED}",
        SHARE,
        target(
            ratio(rate("l0_wasted_tokens_total", "model"), rate("l0_tokens_total", "model")),
            "{{model}}"))),
    (12, graph(
        "Usage reported by providers",
        f"Tokens as the provider bills them, if it reported them; an interrupted run often has none. "
        f"This is not the number of stream items. {MEASURED}", TOKENS_PER_SECOND,
        target(rate("l0_usage_input_tokens_total", "model"), "{{model}} in"),
        target(rate("l0_usage_output_tokens_total", "model"), "{{model}} out"))),
]

COST = [
    (12, graph(
        "Cost per hour",
        f"The cost of attempts, as reported by providers or from prices, each under its own model. "
        f"Models without a price are not included. {MEASURED}", COUNT,
        target(f"3600 * {rate('l0_cost_total', 'model, currency')}", "{{model}} {{currency}}"),
        stack="normal")),
    (12, graph(
        "Wasted cost",
        f"The share of a model's cost in attempts that a retry or a fallback discarded. "
        f"{MEASURED}", SHARE,
        target(
            ratio(rate("l0_cost_total", "model, currency", 'wasted="true"'),
                  rate("l0_cost_total", "model, currency")),
            "{{model}} {{currency}}"))),
    (12, graph(
        "Cost per completed answer",
        "All costs divided by the completed runs, so failed runs are included in the cost of an answer. "
        "Too low with sampling, because costs cover measured runs and completed runs do not.",
        COUNT,
        target(
            ratio(rate("l0_cost_total", "currency"),
                  "on () group_left ()\n"
                  + rate("l0_streams_finished_total", more='outcome="completed"')),
            "{{currency}}"))),
    (12, graph(
        "Estimated and unpriced cost",
        f"The estimated cost of unfinished answers per hour, and the share of runs without a price for "
        f"their model. {MEASURED}", COUNT,
        target(f"3600 * {rate('l0_estimated_cost_total', 'currency')}", "estimated {{currency}}"),
        target(ratio(rate("l0_unpriced_runs_total", "model"), rate("l0_requests_total", "model")),
               "{{model}} without a price"))),
]

ATTEMPTS = [
    (8, graph(
        "Attempts by result",
        f"Calls of models, including those of retries and fallbacks. {MEASURED}", PER_SECOND,
        target(rate("l0_attempts_total", "result"), "{{result}}"),
        stack="normal", colors=OUTCOME_COLORS)),
    (8, graph(
        "Failed attempts by model and result",
        f"The ten most frequent pairs: which model fails, whatever the outcome of the run. {ATTEMPTS_OF}",
        PER_SECOND,
        target(
            f"topk(10, {rate('l0_attempts_total', 'model, result', FAILED_ATTEMPTS)})",
            "{{model}} {{result}}"))),
    (8, graph(
        "Failed share of attempts by model",
        f"The reliability of each model by itself. {ATTEMPTS_OF}", SHARE,
        target(
            ratio(rate("l0_attempts_total", "model", FAILED_ATTEMPTS),
                  rate("l0_attempts_total", "model")),
            "{{model}}"))),
    (8, graph(
        "Fallbacks",
        f"Fallbacks from one model to another. A pair appears with its first fallback, which rate does not see. "
        f"{ALL}", PER_SECOND,
        target(rate("l0_fallbacks_total", "from, to"), "{{from}} to {{to}}"), stack="normal")),
    (8, graph(
        "Fallbacks per run by the model called first",
        f"At 1, every run falls back from the model. {ALL}", COUNT,
        target(
            ratio(rate("l0_fallbacks_total", "model"), rate("l0_streams_finished_total", "model")),
            "{{model}}"))),
    (8, graph(
        "Time to first token of an attempt, p95",
        f"From the call of a model to its first token, without retries. {ATTEMPTS_OF}", SECONDS,
        target(
            quantile(0.95, "l0_attempt_time_to_first_token_seconds", "le, model"), "{{model}}"))),
]

RETRIES = [
    (8, graph(
        "Retries", f"Network: after a network error. Model: because of its answer. {MEASURED}",
        PER_SECOND,
        target(rate("l0_retries_network_total"), "network"),
        target(rate("l0_retries_model_total"), "model"), stack="normal")),
    (8, graph(
        "Retried share of attempts", f"At 0, every attempt succeeds. {ATTEMPTS_OF}", SHARE,
        target(ratio(rate("l0_retries_total", "model"), rate("l0_attempts_total", "model")),
               "{{model}}"))),
    (8, graph(
        "Runs that wait for a retry",
        f"Seconds of back-off per second: the average number of waiting runs. It rises as soon as a "
        f"back-off begins, before runs end. {ALL}", COUNT,
        target(rate("l0_backoff_seconds_total", "model"), "{{model}}"))),
    (12, graph(
        "Network errors by type",
        f"Each attempt can have one, so there can be more errors than requests. A type appears with "
        f"its first error, which rate does not see. {MEASURED}", PER_SECOND,
        target(rate("l0_network_errors_by_type_total", "error_type"), "{{error_type}}"),
        stack="normal")),
    (12, graph(
        "Network errors per attempt", ATTEMPTS_OF, SHARE,
        target(
            ratio(rate("l0_network_errors_total", "model"), rate("l0_attempts_total", "model")),
            "{{model}}"))),
]

GUARDRAILS = [
    (8, graph(
        "Guardrail violations by severity", f"Each violation counts once per attempt. {MEASURED}",
        PER_SECOND,
        target(rate("l0_guardrail_violations_by_severity_total", "severity"), "{{severity}}"),
        stack="normal", colors=SEVERITY_COLORS)),
    (8, graph(
        "Guardrail violations by rule",
        f"The ten most frequent rules. A rule appears with its first violation, which rate does "
        f"not see. {MEASURED}", PER_SECOND,
        target(f"topk(10, {rate('l0_guardrail_violations_by_rule_total', 'rule')})", "{{rule}}"))),
    (8, graph(
        "Violations and drift per request",
        f"Violations per request, and the share of requests with drift. {MEASURED}", COUNT,
        target(ratio(rate("l0_guardrail_violations_total"), REQUESTS), "violations"),
        target(ratio(rate("l0_drift_detected_total"), REQUESTS), "drift"))),
]


def health(metric):
    return f"sum by (instance) (increase({metric}{{{INSTANCES}}}[{RANGE}]))"


COLLECTOR = [
    (8, graph(
        "Label sets",
        "Label sets of runs on each instance: at most max_series, and one for all others.", COUNT,
        target(f"count by (instance) (l0_requests_total{{{INSTANCES}}})", "{{instance}}"))),
    (8, graph(
        "Look-ups beyond max_series",
        "Look-ups of label sets beyond max_series, which are counted under `other`. If it is above 0, "
        "a label has too many values.", COUNT,
        target(health("l0_series_overflow_total"), "{{instance}}"))),
    (8, graph(
        "Panics of observers",
        "Panics that were contained. The runs continued without that observer. Anything above 0 is a "
        "bug in an observer.", COUNT,
        target(health("l0_observer_panics_total"), "{{instance}}"))),
]

WITHOUT = "From the recording rules of docs/prometheus/rules.yml; empty without them. "
RULES = WITHOUT + "Over five minutes, all endpoints and all instances; cheap over long ranges. "


def recorded(rule):
    return target(f'job_model:{rule}{{model=~"$model"}}', "{{job}} {{model}}")


def burn_rate(missed, objective):
    return target(
        f'job_model:{missed}:ratio_rate1h{{model=~"$model"}}\n'
        f"/ (1 - scalar(objective:{objective}:ratio))",
        "{{job}} {{model}}")


RECORDED = [
    (8, graph("Failure share", RULES + ALL, SHARE,
              recorded("l0_streams_failed_per_streams_finished:ratio_rate5m"))),
    (8, graph("Time to first token, p95", RULES + MEASURED, SECONDS,
              recorded("l0_time_to_first_token_seconds:p95_rate5m"))),
    (8, graph("Failed share of attempts", RULES + MEASURED, SHARE,
              recorded("l0_attempts_failed_per_attempts:ratio_rate5m"))),
    (12, graph(
        "Burn rate of the budget of completed runs",
        f"Over an hour: how many times more runs fail than the objective allows. {WITHOUT}{ALL}", COUNT,
        burn_rate("l0_streams_failed_per_streams_judged", "l0_streams_completed"))),
    (12, graph(
        "Burn rate of the budget of first tokens in time",
        f"Over an hour: how many times more first tokens are late than the objective allows. {WITHOUT}{MEASURED}", COUNT,
        burn_rate("l0_first_tokens_late_per_first_tokens", "l0_first_tokens_in_time"))),
]

# Title, panels, their height.
ROWS = [
    ("Overview", OVERVIEW, 4),
    ("Runs", ALL_RUNS, 8),
    ("Latency", LATENCY, 8),
    ("Tokens", TOKENS, 8),
    ("Cost", COST, 8),
    ("Attempts and fallbacks", ATTEMPTS, 8),
    ("Retries and network errors", RETRIES, 8),
    ("Guardrails and drift", GUARDRAILS, 8),
    ("Collector", COLLECTOR, 7),
    ("Recorded, by job and model", RECORDED, 8),
]

WIDTH = 24


def layout():
    panels = []
    y = 0

    def place(one, x, w, h):
        panels.append({"id": len(panels) + 1, **one, "gridPos": {"x": x, "y": y, "w": w, "h": h}})

    for title, row, height in ROWS:
        place({"type": "row", "title": title, "collapsed": False, "panels": []}, 0, WIDTH, 1)
        y += 1
        x = 0
        for width, one in row:
            if x + width > WIDTH:
                x, y = 0, y + height
            place(one, x, width, height)
            x += width
        y += height
    return panels


def variable(name, label, query):
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        # On time range change, because label sets come and go.
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        # Also matches series without the label.
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "options": [],
        "regex": "",
        "hide": 0,
        "skipUrlSync": False,
    }


def dashboard():
    plugins = [("datasource", "prometheus", "Prometheus", "1.0.0")] + [
        ("panel", kind, name, "")
        for kind, name in (("heatmap", "Heatmap"), ("stat", "Stat"), ("timeseries", "Time series"))
    ]
    return {
        "__inputs": [
            {
                "name": "DS_PROMETHEUS",
                "label": "Prometheus",
                "description": "The Prometheus that scrapes the application",
                "type": "datasource",
                "pluginId": "prometheus",
                "pluginName": "Prometheus",
            }
        ],
        "__elements": {},
        "__requires": [
            {"type": "grafana", "id": "grafana", "name": "Grafana", "version": "10.0.0"},
            *({"type": t, "id": i, "name": n, "version": v} for t, i, n, v in plugins),
        ],
        "annotations": {
            "list": [
                {
                    "builtIn": 1,
                    "datasource": {"type": "grafana", "uid": "-- Grafana --"},
                    "enable": True,
                    "hide": True,
                    "iconColor": "rgba(0, 211, 255, 1)",
                    "name": "Annotations & Alerts",
                    "type": "dashboard",
                }
            ]
        },
        "description": "L0 runs as counted by l0-prometheus.",
        "editable": True,
        "fiscalYearStartMonth": 0,
        "graphTooltip": 1,
        "id": None,
        "links": [],
        "panels": layout(),
        "refresh": "30s",
        "schemaVersion": 38,
        "tags": ["l0", "llm"],
        "templating": {
            "list": [
                {
                    "type": "datasource",
                    "name": "datasource",
                    "label": "Data source",
                    "query": "prometheus",
                    "current": {"selected": False, "text": "Prometheus", "value": "${DS_PROMETHEUS}"},
                    "options": [],
                    "refresh": 1,
                    "regex": "",
                    "multi": False,
                    "includeAll": False,
                    "hide": 0,
                    "skipUrlSync": False,
                },
                variable("instance", "Instance", "label_values(l0_requests_total, instance)"),
                variable(
                    "model", "Model",
                    'label_values(l0_requests_total{instance=~"$instance"}, model)'),
                variable(
                    "endpoint", "Endpoint",
                    'label_values(l0_requests_total{instance=~"$instance", model=~"$model"}, endpoint)'),
            ]
        },
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "timezone": "",
        "title": "L0",
        "uid": "l0-prometheus",
        "version": 1,
        "weekStart": "",
    }


# ---- Kubernetes

CONFIG_MAP = """\
# The dashboard for the Grafana of kube-prometheus-stack, whose sidecar selects it by this label. It is
# docs/grafana/l0.json with a data source that is chosen in the dashboard. Written by docs/grafana/generate.py.
apiVersion: v1
kind: ConfigMap
metadata:
  name: l0-dashboard
  labels:
    grafana_dashboard: "1"
data:
  l0.json: |
"""
RULES_HEAD = """\
# The rules and alerts of docs/prometheus/rules.yml and alerts.yml, for the Prometheus Operator. Change
# `release` to the value by which your Prometheus selects rules. Written by docs/grafana/generate.py.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: l0
  labels:
    release: prometheus
spec:
  groups:
"""


def indented(text, by):
    return "".join(" " * by + line if line.strip() else line for line in text.splitlines(keepends=True))


def config_map():
    """A provisioned dashboard is not imported, so it has no inputs."""
    provisioned = {key: value for key, value in dashboard().items() if not key.startswith("__")}
    provisioned["templating"]["list"][0]["current"] = {}  # the data source: Grafana's default
    return CONFIG_MAP + indented(json.dumps(provisioned, indent=1, ensure_ascii=False) + "\n", 4)


def prometheus_rule():
    groups = ""
    for name in ("rules.yml", "alerts.yml"):
        _, _, after = (PROMETHEUS / name).read_text(encoding="utf-8").partition("\ngroups:\n")
        groups += after
    return RULES_HEAD + indented(groups, 2)


def main():
    files = {
        OUTPUT: json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n",
        KUBERNETES / "dashboard.yaml": config_map(),
        KUBERNETES / "rules.yaml": prometheus_rule(),
    }
    if sys.argv[1:] == ["--check"]:
        for file, text in files.items():
            if not file.exists() or file.read_text(encoding="utf-8") != text:
                sys.exit(f"{file.name} is out of date: run {pathlib.Path(__file__).name}")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        for file, text in files.items():
            file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
