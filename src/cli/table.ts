import Table from 'cli-table3';

import { printable } from './printable.js';

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
    middle: '  ',
  },
  style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
};

/** Columns under their heads; every cell is made printable. */
export function toTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  return layOut([head.map((name) => name.toUpperCase()), ...rows]);
}

/** One field a line, name before value; a field without a value is left out. */
export function toFields(fields: readonly (readonly [name: string, value: string | undefined])[]): string {
  return layOut(fields.flatMap(([name, value]) => (value === undefined || value === '' ? [] : [[name, value]])));
}

function layOut(rows: readonly (readonly string[])[]): string {
  const table = new Table(NO_LINES);
  table.push(...rows.map((row) => row.map(printable)));
  return table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}
