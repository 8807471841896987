/** The report: as text for a terminal, and in the place that docs/performance.md leaves for it. */
import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { format, resolveConfig } from 'prettier';

import { drawBars } from './chart.js';
import type { Section } from './measured.js';
import { toTable } from './report.js';

const PAGE = fileURLToPath(new URL('../../docs/performance.md', import.meta.url));
const CHART = fileURLToPath(new URL('../../docs/performance.svg', import.meta.url));
const BEGIN = '<!-- npm run bench writes from here -->';
const END = '<!-- to here -->';

export interface Report {
  readonly command: string;
  /** Of the machine and the moment. */
  readonly conditions: string;
  readonly rounds: number;
  readonly sections: readonly Section[];
}

/** In Markdown. */
export async function renderReport({ command, conditions, rounds, sections }: Report): Promise<string> {
  const goals = sections.flatMap((section) => section.goals);
  const goalRows = goals.map(({ what, goal, reached, met }) => [what, goal, reached, met ? 'yes' : 'no']);
  const parts = [
    `\`${command}\``,
    `${conditions}.`,
    `Figures are medians of ${rounds} rounds. Ratios are taken within a round; beside their median stand the least and the greatest.`,
    ...(goals.length > 0 ? ['## Figures to reach', toTable(['what', 'goal', 'reached', 'met'], goalRows)] : []),
    ...sections.flatMap(({ title, text, head, rows }) => [`## ${title}`, text, toTable(head, rows)]),
  ];
  const settings = await resolveConfig(PAGE);
  return format(parts.join('\n\n'), { ...settings, parser: 'markdown' });
}

/** @throws Error where the page has no place for it */
export async function writePage(report: Report): Promise<void> {
  const page = await readFile(PAGE, 'utf8');
  const [begin, end] = [page.indexOf(BEGIN), page.indexOf(END)];
  if (begin < 0 || end < begin) throw new Error(`docs/performance.md lacks the lines "${BEGIN}" and "${END}"`);
  const rendered = await renderReport(report);
  await writeFile(PAGE, `${page.slice(0, begin)}${BEGIN}\n\n${rendered}\n${page.slice(end)}`);
  const bars = report.sections.flatMap((section) => section.bars);
  if (bars.length > 0) await writeFile(CHART, drawBars(bars, report.conditions));
}
