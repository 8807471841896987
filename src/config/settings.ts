/** The settings: a pure function of the environment, which nothing else reads. */
import { fileURLToPath } from 'node:url';
import { z } from 'zod';

import type { Peppers } from '../keys/pepper.js';
import { Secret } from '../keys/secret.js';
import { type Address, isLoopback, parseAddress } from './address.js';
import { parsePeppers } from './peppers.js';
import { across, type Findings, type Hides, judgeInput, nearest, oneOf, type Problem, text } from './problems.js';

export type Environment = Readonly<Record<string, string | undefined>>;

export interface Settings {
  readonly listen: Address;
  /** Where HTTP is answered; absent: nowhere. */
  readonly httpListen?: Address;
  readonly store:
    | { readonly kind: 'sqlite'; readonly dataDir: string }
    | {
        readonly kind: 'mongodb';
        readonly uri: Secret;
        /** How long a replica answers from memory after it was last known to be told of every change. */
        readonly leaseMs: number;
      };
  readonly auditSink: { readonly kind: 'file'; readonly dataDir: string } | KafkaSinkSettings;
  readonly keyspacesFile: string;
  /** Absent: whoever connects is the caller `local`. */
  readonly callersFile?: string;
  readonly tls?: { readonly certFile: string; readonly keyFile: string; readonly clientCaFile?: string };
  readonly peppers: Peppers;
  /** Names the source of events: `[A-Za-z0-9._-]{1,64}`. */
  readonly installation: string;
  /** Unpublished events beyond which creating and widening are refused. */
  readonly auditBacklogMax: number;
  /** Whether listening beyond loopback was asked for without TLS or without callers. */
  readonly insecureListen: boolean;
  readonly logLevel: LogLevel;
  /** What does not stop a start but is hardly meant, such as a variable that nothing reads. */
  readonly warnings: readonly Problem[];
}

export interface KafkaSinkSettings {
  readonly kind: 'kafka';
  /** `host:port` each. */
  readonly brokers: readonly string[];
  readonly topic: string;
  /** Development: accept a topic with fewer than three replicas. */
  readonly allowSingleBroker: boolean;
  /** Absent: without TLS. */
  readonly tls?: KafkaTlsFiles;
  /** Absent: without a login. */
  readonly sasl?: KafkaLogin;
}

/** PEM files. */
export interface KafkaTlsFiles {
  /** Who vouches for the brokers; absent: those whom the machine trusts. */
  readonly caFile?: string;
  /** What this client shows; absent: nothing. */
  readonly client?: { readonly certFile: string; readonly keyFile: string };
}

export interface KafkaLogin {
  readonly mechanism: (typeof SASL_MECHANISMS)[number];
  readonly username: string;
  readonly password: Secret;
}

const SASL_MECHANISMS = ['plain', 'scram-sha-256', 'scram-sha-512'] as const;

const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** @returns the settings, or all that is wrong, doubtful variables included: one of them may be the reason */
export function parseSettings(env: Environment): Settings | Problem[] {
  const given = setVariables(env);
  const warnings = [...unknownVariables(given), ...idleVariables(given)];
  const variables = judgeInput(environmentSchema, given, hides);
  return Array.isArray(variables) ? [...variables, ...warnings] : toSettings(variables, warnings);
}

/** The files that the settings name, whatever else is wrong with them, and the variable behind each. */
export function namedFiles(
  env: Environment,
): Record<
  'keyspaces' | 'callers' | 'certificate' | 'privateKey' | 'clientCa' | 'kafkaCa' | 'kafkaCertificate' | 'kafkaKey',
  NamedFile
> {
  const given = setVariables(env);
  const named = (variable: string): NamedFile => ({ variable, path: given[variable] });
  const keyspaces = named('KEYREEVE_KEYSPACES');
  return {
    keyspaces: keyspaces.path ? keyspaces : { ...keyspaces, path: KEYSPACES_FILE, instead: EXAMPLE_KEYSPACES },
    callers: named('KEYREEVE_CALLERS'),
    certificate: named('KEYREEVE_TLS_CERT'),
    privateKey: named('KEYREEVE_TLS_KEY'),
    clientCa: named('KEYREEVE_TLS_CLIENT_CA'),
    kafkaCa: named('KEYREEVE_KAFKA_CA'),
    kafkaCertificate: named('KEYREEVE_KAFKA_CERT'),
    kafkaKey: named('KEYREEVE_KAFKA_KEY'),
  };
}

export interface NamedFile {
  readonly variable: string;
  /** Absent: the variable is unset and has no default. */
  readonly path: string | undefined;
  /** What is read where nothing is named and there is no file at the default's path. */
  readonly instead?: string;
}

const KEYSPACES_FILE = 'config/keyspaces.yaml';
/** Those that come with the program. */
const EXAMPLE_KEYSPACES = fileURLToPath(new URL(`../../${KEYSPACES_FILE}`, import.meta.url));

const address = z.string('host:port').transform((value, context) => {
  const parsed = parseAddress(value);
  if (parsed) return parsed;
  context.issues.push({ code: 'custom', input: value, message: 'host:port, e.g. 127.0.0.1:50051 or [::1]:50051' });
  return z.NEVER;
});
const brokers = z
  .string()
  .transform((list) => list.split(',').map((broker) => broker.trim()))
  .refine(
    (list) => list.every((broker) => (parseAddress(broker)?.port ?? 0) > 0),
    'host:port, or several with commas between, e.g. kafka-1:9092,kafka-2:9092',
  );
const peppers = z.string().transform((value, context) => {
  const { peppers, expected } = parsePeppers(value);
  for (const message of expected) context.issues.push({ code: 'custom', input: value, message });
  return peppers;
});
const flag = oneOf(['true', 'false']).transform((value) => value === 'true');

const variablesSchema = z.object({
  KEYREEVE_LISTEN: address.prefault('127.0.0.1:50051'),
  KEYREEVE_HTTP_LISTEN: address.optional(),
  KEYREEVE_DATA_DIR: z.string().default('./data'),
  // The driver has the last word on the rest of it, and does not repeat the password.
  KEYREEVE_MONGODB_URI: text(/^mongodb(?:\+srv)?:\/\/[^/?]/, 'mongodb://… or mongodb+srv://…')
    .transform((uri) => new Secret(uri))
    .optional(),
  KEYREEVE_KAFKA_BROKERS: brokers.optional(),
  KEYREEVE_AUDIT_TOPIC: text(/^(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}$/, '1 to 249 characters of A-Z a-z 0-9 . _ -').default(
    'keyreeve.audit.v1',
  ),
  KEYREEVE_KAFKA_TLS: flag.default(false),
  KEYREEVE_KAFKA_CA: z.string().optional(),
  KEYREEVE_KAFKA_CERT: z.string().optional(),
  KEYREEVE_KAFKA_KEY: z.string().optional(),
  KEYREEVE_KAFKA_SASL: oneOf(SASL_MECHANISMS).optional(),
  KEYREEVE_KAFKA_USERNAME: z.string().optional(),
  KEYREEVE_KAFKA_PASSWORD: z
    .string()
    .transform((password) => new Secret(password))
    .optional(),
  KEYREEVE_KEYSPACES: z.string().default(KEYSPACES_FILE),
  KEYREEVE_CALLERS: z.string().optional(),
  KEYREEVE_TLS_CERT: z.string().optional(),
  KEYREEVE_TLS_KEY: z.string().optional(),
  KEYREEVE_TLS_CLIENT_CA: z.string().optional(),
  KEYREEVE_INSTALLATION: text(/^[A-Za-z0-9._-]{1,64}$/, '1 to 64 characters of A-Z a-z 0-9 . _ -').default('local'),
  KEYREEVE_PEPPERS: peppers.default([]),
  KEYREEVE_AUDIT_BACKLOG_MAX: text(/^[1-9]\d{0,14}$/, 'a whole number, 1 or more')
    .transform(Number)
    .default(1_000_000),
  KEYREEVE_LEASE_MS: text(/^\d{4,6}$/, 'milliseconds, 1000 to 300000')
    .transform(Number)
    .refine((ms) => ms >= 1000 && ms <= 300_000, 'milliseconds, 1000 to 300000')
    .default(15_000),
  KEYREEVE_KAFKA_ALLOW_SINGLE_BROKER: flag.default(false),
  KEYREEVE_INSECURE_LISTEN: flag.default(false),
  KEYREEVE_LOG_LEVEL: oneOf(LOG_LEVELS).default('info'),
});
type Variables = z.output<typeof variablesSchema>;
const environmentSchema = variablesSchema.check(
  across(judgeTlsPair),
  across(judgeListen),
  across(judgeKafkaTls),
  across(judgeKafkaLogin),
);

// Wherever it was put, a URI with a user may hold a password.
const hides: Hides = (name, value) => SECRET_VARIABLES.has(name) || (typeof value === 'string' && value.includes('@'));
const SECRET_VARIABLES = new Set(['KEYREEVE_MONGODB_URI', 'KEYREEVE_PEPPERS', 'KEYREEVE_KAFKA_PASSWORD']);
const COMMAND_VARIABLES = [
  'KEYREEVE_SERVER',
  'KEYREEVE_TOKEN',
  'KEYREEVE_TOKEN_FILE',
  'KEYREEVE_CA_CERT',
  'KEYREEVE_CLIENT_CERT',
  'KEYREEVE_CLIENT_KEY',
];
const OWN = 'KEYREEVE_';
const KNOWN_VARIABLES = [...Object.keys(variablesSchema.shape), ...COMMAND_VARIABLES];
const KNOWN_NAMES = KNOWN_VARIABLES.map((name) => name.slice(OWN.length));

function judgeTlsPair(variables: Variables, { report }: Findings): void {
  const { KEYREEVE_TLS_CERT: cert, KEYREEVE_TLS_KEY: key } = variables;
  if (cert && !key) report(['KEYREEVE_TLS_KEY'], 'the file of the private key, as KEYREEVE_TLS_CERT is set');
  if (key && !cert) report(['KEYREEVE_TLS_CERT'], 'the file of the certificate, as KEYREEVE_TLS_KEY is set');
  if (variables.KEYREEVE_TLS_CLIENT_CA && !cert && !key) {
    report(['KEYREEVE_TLS_CERT'], "the file of the server's certificate, as KEYREEVE_TLS_CLIENT_CA is set");
  }
}

function judgeKafkaTls(variables: Variables, { sound, report }: Findings): void {
  const { KEYREEVE_KAFKA_CERT: cert, KEYREEVE_KAFKA_KEY: key, KEYREEVE_KAFKA_CA: ca } = variables;
  if (cert && !key) report(['KEYREEVE_KAFKA_KEY'], 'the file of the private key, as KEYREEVE_KAFKA_CERT is set');
  if (key && !cert) report(['KEYREEVE_KAFKA_CERT'], 'the file of the certificate, as KEYREEVE_KAFKA_KEY is set');
  if (!sound('KEYREEVE_KAFKA_TLS') || variables.KEYREEVE_KAFKA_TLS) return;
  const [idle] = [ca && 'KEYREEVE_KAFKA_CA', cert && 'KEYREEVE_KAFKA_CERT'].filter((name) => name);
  if (idle) report(['KEYREEVE_KAFKA_TLS'], `true, as ${idle} is set`);
}

function judgeKafkaLogin(variables: Variables, { sound, report }: Findings): void {
  const { KEYREEVE_KAFKA_SASL: mechanism, KEYREEVE_KAFKA_USERNAME: username } = variables;
  const { KEYREEVE_KAFKA_PASSWORD: password } = variables;
  if (!sound('KEYREEVE_KAFKA_SASL') || !sound('KEYREEVE_KAFKA_TLS')) return;
  if (mechanism === undefined) {
    if (username || password) report(['KEYREEVE_KAFKA_SASL'], `one of ${SASL_MECHANISMS.join(', ')}, as a user is set`);
    return;
  }
  if (!username) report(['KEYREEVE_KAFKA_USERNAME'], 'the user, as KEYREEVE_KAFKA_SASL is set');
  if (!password) report(['KEYREEVE_KAFKA_PASSWORD'], "the user's password, as KEYREEVE_KAFKA_SASL is set");
  if (mechanism === 'plain' && !variables.KEYREEVE_KAFKA_TLS) {
    report(['KEYREEVE_KAFKA_TLS'], 'true, or KEYREEVE_KAFKA_SASL scram-sha-512: plain sends the password as it is');
  }
}

// Without TLS tokens travel in the clear, without callers everyone has every right: neither leaves the machine unasked.
function judgeListen(variables: Variables, { sound, report }: Findings): void {
  if (!sound('KEYREEVE_INSECURE_LISTEN') || variables.KEYREEVE_INSECURE_LISTEN) return;
  const { KEYREEVE_TLS_CERT: cert, KEYREEVE_TLS_KEY: key, KEYREEVE_CALLERS: callers } = variables;
  const unset = [...(cert || key ? [] : ['KEYREEVE_TLS_CERT']), ...(callers ? [] : ['KEYREEVE_CALLERS'])];
  if (unset.length === 0) return;
  for (const [name, loopback] of [
    ['KEYREEVE_LISTEN', '127.0.0.1:50051'],
    ['KEYREEVE_HTTP_LISTEN', '127.0.0.1:8080'],
  ] as const) {
    const listen = sound(name) ? variables[name] : undefined;
    if (!listen || isLoopback(listen)) continue;
    report(
      [name],
      `a loopback address such as ${loopback} while ${unset.join(' and ')} ${unset.length > 1 ? 'are' : 'is'} unset; ` +
        `KEYREEVE_INSECURE_LISTEN=true lifts this`,
    );
  }
}

function toSettings(variables: Variables, warnings: readonly Problem[]): Settings {
  const dataDir = variables.KEYREEVE_DATA_DIR;
  const { KEYREEVE_MONGODB_URI: uri, KEYREEVE_KAFKA_BROKERS: brokers } = variables;
  const { KEYREEVE_TLS_CERT: certFile, KEYREEVE_TLS_KEY: keyFile, KEYREEVE_TLS_CLIENT_CA: clientCaFile } = variables;
  const { KEYREEVE_CALLERS: callersFile, KEYREEVE_HTTP_LISTEN: httpListen } = variables;
  return {
    listen: variables.KEYREEVE_LISTEN,
    ...(httpListen && { httpListen }),
    store: uri ? { kind: 'mongodb', uri, leaseMs: variables.KEYREEVE_LEASE_MS } : { kind: 'sqlite', dataDir },
    auditSink: brokers
      ? {
          kind: 'kafka',
          brokers,
          topic: variables.KEYREEVE_AUDIT_TOPIC,
          allowSingleBroker: variables.KEYREEVE_KAFKA_ALLOW_SINGLE_BROKER,
          ...kafkaSecurityOf(variables),
        }
      : { kind: 'file', dataDir },
    keyspacesFile: variables.KEYREEVE_KEYSPACES,
    ...(callersFile && { callersFile }),
    ...(certFile && keyFile && { tls: { certFile, keyFile, ...(clientCaFile && { clientCaFile }) } }),
    installation: variables.KEYREEVE_INSTALLATION,
    peppers: variables.KEYREEVE_PEPPERS,
    auditBacklogMax: variables.KEYREEVE_AUDIT_BACKLOG_MAX,
    insecureListen: variables.KEYREEVE_INSECURE_LISTEN,
    logLevel: variables.KEYREEVE_LOG_LEVEL,
    warnings,
  };
}

function kafkaSecurityOf(variables: Variables): Pick<KafkaSinkSettings, 'tls' | 'sasl'> {
  const { KEYREEVE_KAFKA_CA: caFile, KEYREEVE_KAFKA_CERT: certFile, KEYREEVE_KAFKA_KEY: keyFile } = variables;
  const { KEYREEVE_KAFKA_SASL: mechanism, KEYREEVE_KAFKA_USERNAME: username } = variables;
  const { KEYREEVE_KAFKA_PASSWORD: password } = variables;
  const tls = { ...(caFile && { caFile }), ...(certFile && keyFile && { client: { certFile, keyFile } }) };
  return {
    ...(variables.KEYREEVE_KAFKA_TLS && { tls }),
    ...(mechanism && username && password && { sasl: { mechanism, username, password } }),
  };
}

/** An empty variable counts as unset. */
function setVariables(env: Environment): Environment {
  return Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined && value !== ''));
}

/** Variables that nothing reads: a typo must not pass unseen. Their values are not shown. */
function unknownVariables(given: Environment): Problem[] {
  return Object.keys(given)
    .filter((name) => name.startsWith(OWN) && !name.startsWith('KEYREEVE_TEST_') && !KNOWN_VARIABLES.includes(name))
    .map((name) => {
      const meant = nearest(name.slice(OWN.length), KNOWN_NAMES);
      return {
        path: name,
        message: `unknown variable; ${meant ? `did you mean ${OWN}${meant}?` : 'nothing reads it'}`,
      };
    });
}

function idleVariables(given: Environment): Problem[] {
  const needs = {
    KEYREEVE_AUDIT_TOPIC: 'KEYREEVE_KAFKA_BROKERS',
    KEYREEVE_KAFKA_ALLOW_SINGLE_BROKER: 'KEYREEVE_KAFKA_BROKERS',
    KEYREEVE_KAFKA_TLS: 'KEYREEVE_KAFKA_BROKERS',
    KEYREEVE_KAFKA_SASL: 'KEYREEVE_KAFKA_BROKERS',
    KEYREEVE_LEASE_MS: 'KEYREEVE_MONGODB_URI',
  };
  return Object.entries(needs)
    .filter(([name, needed]) => given[name] !== undefined && given[needed] === undefined)
    .map(([name, needed]) => ({ path: name, message: `without effect; it needs ${needed}` }));
}
