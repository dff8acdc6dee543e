"""Ready-made instruments, each in a module of its own with an extra of its own.

=================  ===================================================  =============  ====================
module             what it has                                          extra          packages it needs
=================  ===================================================  =============  ====================
`opentelemetry`    `OpenTelemetryInstrument`, `OpenTelemetryMetrics`    ``otel``       `opentelemetry-api`
`prometheus`       `PrometheusInstrument`                               ``prometheus``  `prometheus-client`
`statsd`           `StatsdInstrument`                                   ``statsd``     `datadog`
`logs`             `LoggingInstrument`, `DetailedLoggingInstrument`     ``structlog``  `logging`, `structlog`
=================  ===================================================  =============  ====================

This package imports none of them. ``docs/metrics-and-traces.md`` shows how they are used.
"""
