/**
 * Problems in what an operator wrote, as lines that can be acted on: where, what stands there, what is allowed.
 * Schemas built with these helpers keep one convention: an issue's message is what was expected.
 */
import { z } from 'zod';

export interface Problem {
  /** `keyspaces[3].plans.pro.key_limit`, `KEYREEVE_LISTEN`, `line 3, column 5`. */
  readonly path: string;
  /** `-5; expected a whole number, 1 or more`. */
  readonly message: string;
}

/** Whether a value is not to be shown, by the name of its field or by its looks. */
export type Hides = (field: string, value: unknown) => boolean;

export function formatProblem({ path, message }: Problem): string {
  return `${path}: ${message}`;
}

/** Reads `input` with `schema`, or says all that is wrong with it. */
export function judgeInput<S extends z.ZodType>(schema: S, input: unknown, hides: Hides): z.output<S> | Problem[] {
  const result = schema.safeParse(input);
  return result.success ? result.data : result.error.issues.flatMap((issue) => toProblems(issue, input, hides));
}

/** An object with these fields and no others. */
export function mapping<S extends z.core.$ZodLooseShape>(shape: S): z.ZodObject<S, z.core.$strict> {
  const known = Object.keys(shape).join(', ');
  // An unknown field's issue carries the known names, among which `toProblems` looks for the one that was meant.
  return z.strictObject(shape, {
    error: (issue) => (issue.code === 'unrecognized_keys' ? known : `a mapping of ${known}`),
  });
}

export function text(pattern: RegExp, expected: string): z.ZodString {
  return z.string(expected).regex(pattern, expected);
}

export function oneOf<const T extends readonly string[]>(values: T): z.ZodEnum<{ [K in T[number]]: K }> {
  return z.enum(values, `one of ${values.join(', ')}`);
}

/** From `min` to `max`; without `max`, to what 32 bits hold. */
export function wholeNumber({ min, max }: { min: number; max?: number }): z.ZodNumber {
  const expected = max === undefined ? `a whole number, ${min} or more` : `a whole number from ${min} to ${max}`;
  // Not `abort: true` on the first of two checks: zod then skips the rules across fields, and hides their problems.
  return z.number(expected).refine((value) => Number.isInteger(value) && value >= min && value <= (max ?? UINT32_MAX), {
    error: ({ input }) =>
      max === undefined && Number(input) > UINT32_MAX ? `a whole number, ${UINT32_MAX} or less` : expected,
  });
}

const UINT32_MAX = 2 ** 32 - 1;

/** What a rule across fields works with: paths are relative to the value that it judges. */
export interface Findings {
  /** Whether the value at the path has the right form, so that a rule may read it. What it holds may not. */
  readonly sound: (...path: PropertyKey[]) => boolean;
  readonly report: (path: PropertyKey[], expected: string) => void;
}

/** A rule across fields, judged whatever else is wrong: a rule that waited for clean fields would hide its problem. */
export function across<T>(judge: (value: T, findings: Findings) => void): z.core.$ZodCheck<T> {
  return z.superRefine<T>(
    (value, context) => {
      const issues = context.issues.filter((issue) => issue.code !== 'unrecognized_keys');
      const sound = (...path: PropertyKey[]): boolean =>
        !issues.some((issue) => (issue.path ?? []).every((step, index) => step === path[index]));
      const report = (path: PropertyKey[], expected: string): void =>
        context.addIssue({ code: 'custom', path, message: expected });
      judge(value, { sound, report });
    },
    { when: ({ issues }) => issues.every((issue) => issue.code === 'unrecognized_keys' || issue.path?.length) },
  );
}

/** The indexes of values that stand in the list before. */
export function repeatsOf(values: readonly (string | undefined)[]): number[] {
  return [...values.keys()].filter((index) => values[index] !== undefined && values.indexOf(values[index]) < index);
}

/** The known name that was probably meant: a few letters off, and none if all are far. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  const byDistance = known
    .map((candidate) => ({ candidate, distance: editDistance(name, candidate) }))
    .sort((a, b) => a.distance - b.distance);
  const [best] = byDistance;
  return best && best.distance <= Math.max(1, Math.floor(name.length / 3)) ? best.candidate : undefined;
}

function toProblems(issue: z.core.$ZodIssue, input: unknown, hides: Hides): Problem[] {
  if (issue.code === 'unrecognized_keys') {
    const known = issue.message.split(', ');
    return issue.keys.map((key) => ({
      path: formatPath([...issue.path, key]),
      message: `unknown field; expected ${nearest(key, known) ?? `one of ${known.join(', ')}`}`,
    }));
  }
  const shown = issue.code === 'invalid_key' ? JSON.stringify(issue.path.at(-1)) : show(issue.path, input, hides);
  return [{ path: formatPath(issue.path), message: `${shown}; expected ${issue.message}` }];
}

function formatPath(path: readonly PropertyKey[]): string {
  const steps = path.map((step, index) => {
    if (typeof step === 'number') return `[${step}]`;
    const name = String(step);
    if (!/^[A-Za-z_][\w-]*$/.test(name)) return `[${JSON.stringify(name)}]`;
    return index === 0 ? name : `.${name}`;
  });
  return steps.join('') || 'top level';
}

const SHOWN_LENGTH_MAX = 60;

function show(path: readonly PropertyKey[], input: unknown, hides: Hides): string {
  const value = path.reduce<unknown>(
    (parent, step) => (typeof parent === 'object' && parent !== null ? Reflect.get(parent, step) : undefined),
    input,
  );
  const field = path.findLast((step) => typeof step === 'string') ?? '';
  if (value === undefined) return 'missing';
  if (hides(field, value)) return '[hidden]';
  if (value === null) return 'empty';
  if (Array.isArray(value)) return value.length === 0 ? 'an empty list' : 'a list';
  if (typeof value === 'object') return Object.keys(value).length === 0 ? 'an empty mapping' : 'a mapping';
  if (typeof value !== 'string') return `${value as number | boolean}`;
  // A file that is all text is probably not the one that was meant, and may be a key.
  if (path.length === 0) return 'text';
  return JSON.stringify(value.length > SHOWN_LENGTH_MAX ? `${value.slice(0, SHOWN_LENGTH_MAX)}…` : value);
}

/** Levenshtein's: letters to insert, drop or replace. */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let row = 0; row < a.length; row += 1) {
    const current = [row + 1];
    for (let column = 0; column < b.length; column += 1) {
      const replaced = at(previous, column) + (a[row] === b[column] ? 0 : 1);
      current.push(Math.min(replaced, at(previous, column + 1) + 1, at(current, column) + 1));
    }
    previous = current;
  }
  return at(previous, b.length);
}

function at(numbers: readonly number[], index: number): number {
  return numbers[index] ?? Infinity;
}
