/** What every bench prints: figures, and what one must know to judge them. */
import { cpus, loadavg, release, totalmem, type } from 'node:os';

/** @param share of the values that are no greater than the answer: 0 is the least, 0.5 the median, 1 the greatest */
export function quantile(values: readonly number[], share: number): number {
  const ascending = values.toSorted((a, b) => a - b);
  return ascending[Math.max(0, Math.ceil(share * ascending.length) - 1)] ?? Number.NaN;
}

/** In Markdown. */
export function toTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

/** As of now; a load near the number of cores says that the bench did not have the machine for itself. */
export function describeMachine(): string {
  const cores = cpus();
  const memory = `${Math.round(totalmem() / 2 ** 30)} GiB`;
  const load = loadavg()[0]?.toFixed(1) ?? '';
  const processor = `${cores.length} × ${cores[0]?.model.trim() ?? 'unknown processor'}`;
  return `${processor}, ${memory}, ${type()} ${release()}, Node ${process.version}, load average ${load}`;
}
