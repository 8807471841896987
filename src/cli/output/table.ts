import Table from 'cli-table3';

import { printable } from './printable.js';

// Stands between cells while they are laid out. No cell holds it, since it is not printable.
const EDGE = '\0';
const GAP = '  ';

const NO_LINES = {
  chars: {
    top: '',
    'top-mid': '',
    'top-left': '',
    'top-right': '',
    bottom: '',
    'bottom-mid': '',
    'bottom-left': '',
    'bottom-right': '',
    left: '',
    'left-mid': '',
    mid: '',
    'mid-mid': '',
    right: '',
    'right-mid': '',
    middle: EDGE,
  },
  style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
};

// The library's time grows with the square of the rows: 20,000 at once take half a minute.
const ROWS_AT_ONCE = 50;

/** Columns under their heads; every cell is made printable. */
export function toTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const heads = head.map((name) => name.toUpperCase());
  const parts = Array.from({ length: Math.max(1, Math.ceil(rows.length / ROWS_AT_ONCE)) }, (_, part) =>
    layOut([heads, ...rows.slice(part * ROWS_AT_ONCE, (part + 1) * ROWS_AT_ONCE)]),
  );
  // Within its part every cell of a column is as wide as the head there, which is plain ASCII.
  const widths = parts.map(([laidOutHead]) => (laidOutHead ?? []).map((cell) => cell.length));
  const widest = heads.map((_, column) => Math.max(...widths.map((part) => part[column] ?? 0)));
  const lines = parts.flatMap((part, index) =>
    (index === 0 ? part : part.slice(1)).map((cells) =>
      cells.map((cell, column) => cell + ' '.repeat((widest[column] ?? 0) - (widths[index]?.[column] ?? 0))),
    ),
  );
  return toLines(lines);
}

/** One field a line, name before value; a field without a value is left out. */
export function toFields(fields: readonly (readonly [name: string, value: string | undefined])[]): string {
  return toLines(layOut(fields.flatMap(([name, value]) => (value ? [[name, value]] : []))));
}

/** Each cell filled up to its column's width. */
function layOut(rows: readonly (readonly string[])[]): string[][] {
  const table = new Table(NO_LINES);
  table.push(...rows.map((row) => row.map(printable)));
  return table
    .toString()
    .split('\n')
    .map((line) => line.split(EDGE));
}

function toLines(rows: readonly (readonly string[])[]): string {
  return rows.map((cells) => cells.join(GAP).trimEnd()).join('\n');
}
