/** What the options' values look like: each parser answers the value or says what is expected, never what was given. */
import { randomUUID } from 'node:crypto';
import { Option } from 'commander';

import { type Actor, ActorType } from '../gen/keyreeve/v1/actor.js';
import type { KeySelector } from '../gen/keyreeve/v1/key.js';
import type { CreateKeyRequest } from '../gen/keyreeve/v1/key_service.js';
import type { OrganizationRef } from '../keys/organization.js';
import { UsageFault } from './faults.js';
import { parseDurationMs, parseTime, toDuration } from './output/times.js';

const ACTOR_TYPES: Readonly<Record<string, ActorType>> = {
  user: ActorType.USER,
  service: ActorType.SERVICE,
  api_key: ActorType.API_KEY,
};

/** An option whose value `parse` reads. What it turns down is told with the option's name. */
export function parsedOption(flags: string, description: string, parse: (text: string) => unknown): Option {
  const option = new Option(flags, description);
  return option.argParser((text) => parseNamed(option, parse, text));
}

/** An option that may be given several times. */
export function repeatedOption(flags: string, description: string, parse: (text: string) => unknown): Option {
  const option = new Option(flags, `${description} (repeatable)`);
  return option.argParser((text, previous: readonly unknown[] | undefined) => [
    ...(previous ?? []),
    parseNamed(option, parse, text),
  ]);
}

export const anyText = (text: string): string => text;

/** `user:ada`, `service:billing` or `api_key:key_01…`: only the first colon separates. */
export function parseActor(text: string): Omit<Actor, 'permissions'> {
  const [, kind, id] = /^([a-z_]+):(.+)$/s.exec(text) ?? [];
  const type = Object.hasOwn(ACTOR_TYPES, kind ?? '') ? ACTOR_TYPES[kind ?? ''] : undefined;
  if (type === undefined || id === undefined) {
    throw new UsageFault(`expected ${listOf(Object.keys(ACTOR_TYPES).map((name) => `${name}:ID`))}`);
  }
  return { type, id };
}

/** `team=billing`: only the first equals sign separates, and the value may be empty. */
export function parseLabel(text: string): readonly [key: string, value: string] {
  const at = text.indexOf('=');
  if (at < 1) throw new UsageFault('expected a label as key=value');
  return [text.slice(0, at), text.slice(at + 1)];
}

/** @throws UsageFault for a label given twice */
export function toLabels(labels: readonly (readonly [string, string])[]): Map<string, string> {
  const byKey = new Map(labels);
  if (byKey.size !== labels.length) throw new UsageFault('--label: expected each key once');
  return byKey;
}

export function parseCount(text: string): number {
  const count = /^\d{1,9}$/.test(text) ? Number(text) : 0;
  if (count < 1) throw new UsageFault('expected a whole number, 1 or more');
  return count;
}

export function parseSequence(text: string): bigint {
  if (!/^\d{1,15}$/.test(text)) throw new UsageFault('expected a whole number, 0 or more');
  return BigInt(text);
}

/** Reads one of these names, in upper or lower case. */
export function oneOf<const T extends string>(names: readonly T[]): (text: string) => T {
  return (text) => {
    const found = names.find((name) => name === text.toLowerCase());
    if (found === undefined) throw new UsageFault(`expected ${listOf(names)}`);
    return found;
  };
}

export interface OrganizationOptions {
  readonly keyspace: string;
  readonly organization: string;
}

export const organizationOptions = (): Option[] => [
  new Option('--keyspace <name>', 'the keyspace of the organization').makeOptionMandatory(),
  new Option('--organization <id>', 'the organization that owns the keys').makeOptionMandatory(),
];

export function toOrganization({ keyspace, organization }: OrganizationOptions): OrganizationRef {
  return { keyspace, organizationId: organization };
}

export interface SelectorOptions {
  readonly id?: string;
  readonly name?: string;
  readonly clientId?: string;
}

export const selectorOptions = (): Option[] => [
  new Option('--id <key id>', 'select the key by its key_id').conflicts(['name', 'clientId']),
  new Option('--name <name>', 'select the key by its name').conflicts(['clientId']),
  new Option('--client-id <id>', 'select the key by its client id'),
];

/** @throws UsageFault where no option selects a key */
export function toSelector({ id, name, clientId }: SelectorOptions): KeySelector {
  if (id !== undefined) return { selector: { $case: 'keyId', value: id } };
  if (name !== undefined) return { selector: { $case: 'name', value: name } };
  if (clientId !== undefined) return { selector: { $case: 'clientId', value: clientId } };
  throw new UsageFault('say which key: --id, --name or --client-id');
}

export interface ExpirationOptions {
  readonly expires?: ReturnType<typeof parseTime>;
  /** Milliseconds. */
  readonly ttl?: number;
}

/** @param it what ends: "it", "the new key" */
export const expirationOptions = (it: string): Option[] => [
  parsedOption('--expires <time>', `when ${it} ends, such as 2027-01-01T00:00:00Z`, parseTime).conflicts('ttl'),
  parsedOption('--ttl <duration>', `how long ${it} lives, such as 30d`, parseDurationMs),
];

export function toExpiration({ expires, ttl }: ExpirationOptions): CreateKeyRequest['expiration'] {
  if (expires) return { $case: 'expireTime', value: expires };
  return ttl === undefined ? undefined : { $case: 'ttl', value: toDuration(ttl) };
}

export interface ActorOptions {
  readonly actor?: Omit<Actor, 'permissions'>;
  readonly permission?: readonly string[];
}

export const actorOptions = (): Option[] => [
  parsedOption('--actor <type:id>', 'on whose behalf: user:ID, service:ID or api_key:ID', parseActor),
  repeatedOption('--permission <name>', 'what the actor may do, as you vouch for it', anyText),
];

/** @throws UsageFault for permissions of nobody */
export function toActor({ actor, permission }: ActorOptions): Actor | undefined {
  if (actor) return { ...actor, permissions: [...(permission ?? [])] };
  if (permission) throw new UsageFault('--permission: expected --actor with it');
  return undefined;
}

export interface ChangeOptions extends OrganizationOptions, ActorOptions {
  readonly requestId?: string;
}

/** @param purpose why one would give the id of an earlier try */
export const requestIdOption = (purpose = 'to repeat just that'): Option =>
  new Option('--request-id <id>', `the id of an earlier try, ${purpose} (default: a new one)`);

/** What every request to change something of an organization's holds. */
export function toChange(options: ChangeOptions) {
  const requestId = options.requestId ?? randomUUID();
  return { ...toOrganization(options), actor: toActor(options), requestId };
}

function parseNamed(option: Option, parse: (text: string) => unknown, text: string): unknown {
  try {
    return parse(text);
  } catch (error) {
    if (error instanceof UsageFault) throw new UsageFault(`${option.long ?? option.flags}: ${error.message}`);
    throw error;
  }
}

function listOf(names: readonly string[]): string {
  return `${names.slice(0, -1).join(', ')} or ${names.at(-1) ?? ''}`;
}
