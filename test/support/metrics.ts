/** What a service's metrics say, read as Prometheus would. */

export interface MetricSample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Scraped {
  readonly text: string;
  /** By name, as the text declares them; a histogram's samples have longer names. */
  readonly types: ReadonlyMap<string, string>;
  readonly samples: readonly MetricSample[];
  /** The sum of the series with these labels, whatever others they have; 0 where there are none. */
  readonly sum: (name: string, labels?: Readonly<Record<string, string>>) => number;
  /** The values that this label has, in all metrics. */
  readonly valuesOf: (label: string) => Set<string>;
}

/** @param address of the HTTP port, `host:port` */
export async function scrape(address: string): Promise<Scraped> {
  const response = await fetch(`http://${address}/metrics`);
  if (!response.ok) throw new Error(`/metrics answered ${response.status}`);
  return readMetrics(await response.text());
}

/** @throws Error where a line is not of Prometheus' text format */
export function readMetrics(text: string): Scraped {
  const types = new Map<string, string>();
  const samples: MetricSample[] = [];
  for (const line of text.split('\n')) {
    const [, declared, type] = /^# TYPE (\S+) (\S+)$/.exec(line) ?? [];
    if (declared !== undefined && type !== undefined) types.set(declared, type);
    if (line === '' || line.startsWith('#')) continue;
    const [, name, labels = '', value] = /^([a-z_]\w*)(?:\{(.*)\})? (\S+)$/i.exec(line) ?? [];
    if (name === undefined || value === undefined) throw new Error(`no line of a metric: ${line}`);
    samples.push({ name, labels: readLabels(labels), value: value === '+Inf' ? Infinity : Number(value) });
  }
  const has = (sample: MetricSample, labels: Readonly<Record<string, string>>) =>
    Object.entries(labels).every(([label, value]) => sample.labels[label] === value);
  return {
    text,
    types,
    samples,
    sum: (name, labels = {}) =>
      samples
        .filter((sample) => sample.name === name && has(sample, labels))
        .reduce((sum, sample) => sum + sample.value, 0),
    valuesOf: (label) => new Set(samples.flatMap(({ labels }) => labels[label] ?? [])),
  };
}

function readLabels(text: string): Record<string, string> {
  return Object.fromEntries(
    [...text.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, label = '', value = '']) => [label, value]),
  );
}
