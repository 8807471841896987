/** How figures that others keep become metrics: each is read when somebody asks for all of them. */
import { Counter, Gauge, Histogram, type MetricType, type Registry } from 'prom-client';

import type { Latencies } from './latencies.js';

/** What one series shows; labels that all series of a metric have, by name. */
export type Sample<Label extends string, Value = number> = readonly [
  labels: Readonly<Record<Label, string>>,
  value: Value,
];

export interface Shown<Label extends string, Value = number> {
  readonly name: string;
  readonly help: string;
  readonly labels: readonly Label[];
  /** Called at each scrape. */
  readonly read: () => Iterable<Sample<Label, Value>>;
}

export function showCounter<Label extends string>(
  { name, help, labels, read }: Shown<Label>,
  registry: Registry,
): void {
  new Counter({
    ...{ name, help, labelNames: labels, registers: [registry] },
    collect() {
      this.reset();
      for (const [of, value] of read()) this.inc(of, value);
    },
  });
}

export function showGauge<Label extends string>({ name, help, labels, read }: Shown<Label>, registry: Registry): void {
  new Gauge({
    ...{ name, help, labelNames: labels, registers: [registry] },
    collect() {
      this.reset();
      for (const [of, value] of read()) this.set(of, value);
    },
  });
}

export function showHistogram<Label extends string>(shown: Shown<Label, Latencies>, registry: Registry): void {
  registry.registerMetric(new CountedHistogram(shown));
}

/** One whose buckets are counted elsewhere: the library's own takes longer to count than is left to a verification. */
class CountedHistogram<Label extends string> extends Histogram<Label> {
  readonly #shown: Shown<Label, Latencies>;

  constructor(shown: Shown<Label, Latencies>) {
    const { name, help, labels } = shown;
    super({ name, help, labelNames: labels, registers: [] });
    this.#shown = shown;
  }

  override get(): ReturnType<Histogram<Label>['get']> {
    const { name, help, read } = this.#shown;
    const values = [...read()].flatMap(([labels, latencies]) => toSeries(name, labels, latencies));
    return Promise.resolve({ name, help, type: HISTOGRAM, aggregator: 'sum', collect: () => undefined, values });
  }

  /** What the registry asks for where it is there, as it is in the library's own. */
  getForPromString(): ReturnType<Histogram<Label>['get']> {
    return this.get();
  }
}

// Its types have an enum here, which is not in its code.
const HISTOGRAM = 'histogram' as unknown as MetricType;

function toSeries<Label extends string>(name: string, labels: Readonly<Record<Label, string>>, latencies: Latencies) {
  const { bounds, cumulated, sum } = latencies;
  const buckets = cumulated.map((value, at) => {
    // The library has no name for the label that only histograms have.
    const bucket = { ...labels, le: bounds[at] ?? '+Inf' } as Readonly<Record<Label, string>>;
    return { metricName: `${name}_bucket`, labels: bucket, value };
  });
  return [
    ...buckets,
    { metricName: `${name}_sum`, labels, value: sum },
    { metricName: `${name}_count`, labels, value: cumulated.at(-1) ?? 0 },
  ];
}
