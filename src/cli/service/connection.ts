/** Where the service is, and how to talk to it: decided from options and environment before anything is sent. */
import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createSecureContext } from 'node:tls';
import { type Command, Option } from 'commander';

import { type Address, isLoopback, parseAddress } from '../../config/address.js';
import { Secret } from '../../keys/secret.js';
import { parsedOption } from '../arguments.js';
import { readEnvironment, variables } from '../environment.js';
import { systemCodeOf, UsageFault } from '../faults.js';
import { parseDurationMs } from '../output/times.js';
import type { Terminal } from '../terminal.js';

export interface ConnectionOptions {
  readonly server?: Address;
  readonly tls?: boolean;
  readonly caCert?: string;
  readonly clientCert?: string;
  readonly clientKey?: string;
  readonly insecure?: boolean;
  readonly tokenFile?: string;
  readonly timeout: number;
}

export interface Connection {
  readonly address: Address;
  readonly security: { readonly kind: 'plaintext' } | Tls;
  readonly token?: Secret;
  /** For each call, retries included. */
  readonly timeoutMs: number;
}

export interface Tls {
  readonly kind: 'tls';
  /** Who vouches for the service: `system`, those whom Node trusts; `given`, these, in PEM; `none`, nobody has to. */
  readonly signers: 'system' | 'none' | { readonly given: Buffer };
  /** What this client shows, in PEM; absent: nothing. */
  readonly identity?: Identity;
}

export interface Identity {
  readonly certificate: Buffer;
  readonly privateKey: Buffer;
}

const DEFAULT_ADDRESS: Address = { host: '127.0.0.1', port: 50_051 };
const DEFAULT_TIMEOUT_MS = 20_000;

export function addConnectionOptions(command: Command): Command {
  return command
    .optionsGroup('Connection:')
    .addOption(parsedOption('--server <host:port>', 'the service (default: 127.0.0.1:50051)', parseServer))
    .addOption(new Option('--tls', 'TLS, as is the default anywhere but on loopback'))
    .addOption(new Option('--ca-cert <file>', "TLS, and the certificates (PEM) that sign the service's"))
    .addOption(new Option('--client-cert <file>', "TLS, and the caller's own certificate (PEM)"))
    .addOption(new Option('--client-key <file>', 'the key of that certificate (PEM)'))
    .addOption(
      new Option('--insecure', 'plain text, also to another machine: who listens in has the token').conflicts([
        'tls',
        'caCert',
        'clientCert',
      ]),
    )
    .addOption(new Option('--token-file <file>', "file with the caller's token; see also KEYREEVE_TOKEN"))
    .addOption(
      parsedOption('--timeout <duration>', 'give up on a call after this', parseDurationMs).default(
        DEFAULT_TIMEOUT_MS,
        '20s',
      ),
    );
}

/** @throws UsageFault where an option, a variable or a file that they name is at fault */
export async function toConnection(options: ConnectionOptions, { env }: Terminal): Promise<Connection> {
  const environment = readEnvironment(env);
  const address = options.server ?? addressOf(environment.server) ?? DEFAULT_ADDRESS;
  // What the command line says outright goes before what the environment holds for every call.
  const { caCert, clientCert, clientKey } = { ...(options.insecure ? {} : environment), ...options };
  const token = await readToken(options.tokenFile, environment);
  return {
    address,
    security: await toSecurity({ ...options, caCert, clientCert, clientKey }, address),
    timeoutMs: options.timeout,
    ...(token && { token }),
  };
}

/** @throws UsageFault */
export function parseServer(text: string): Address {
  const address = parseAddress(text);
  if (address && address.port > 0) return address;
  throw new UsageFault('expected host:port, such as keyreeve.example.com:50051 or [::1]:50051');
}

function addressOf(text: string | undefined): Address | undefined {
  if (text === undefined) return undefined;
  try {
    return parseServer(text);
  } catch (error) {
    if (error instanceof UsageFault) throw new UsageFault(`${variables.server}: ${error.message}`);
    throw error;
  }
}

async function toSecurity(
  { tls, insecure, caCert, clientCert, clientKey }: TlsOptions,
  address: Address,
): Promise<Connection['security']> {
  const signers = caCert === undefined ? 'system' : { given: await readCertificates(caCert) };
  const identity = await readIdentity(clientCert, clientKey);
  if (caCert === undefined && !identity && !tls && (insecure || isLoopback(address))) return { kind: 'plaintext' };
  return { kind: 'tls', signers, ...(identity && { identity }) };
}

type TlsOptions = Partial<Record<'tls' | 'insecure', boolean | undefined>> &
  Record<'caCert' | 'clientCert' | 'clientKey', string | undefined>;

/** Undefined where neither is named. @throws UsageFault */
export async function readIdentity(certFile?: string, keyFile?: string): Promise<Identity | undefined> {
  if (certFile === undefined && keyFile === undefined) return undefined;
  if (certFile === undefined || keyFile === undefined) {
    throw new UsageFault('--client-cert and --client-key: expected both, or neither');
  }
  const certificate = await readNamed("the file with the caller's certificate", certFile);
  const privateKey = await readNamed("the file with the certificate's key", keyFile);
  try {
    createSecureContext({ cert: certificate, key: privateKey });
  } catch (error) {
    throw new UsageFault("the caller's certificate and its key: expected PEM, and that they fit", { cause: error });
  }
  return { certificate, privateKey };
}

async function readCertificates(file: string): Promise<Buffer> {
  const text = await readNamed('the file with the certificates', file);
  try {
    // TLS itself passes over what it cannot read, and then trusts nobody.
    new X509Certificate(text);
    return text;
  } catch (error) {
    throw new UsageFault('the file with the certificates: expected certificates as PEM', { cause: error });
  }
}

async function readToken(
  tokenFile: string | undefined,
  environment: ReturnType<typeof readEnvironment>,
): Promise<Secret | undefined> {
  if (tokenFile === undefined && environment.token !== undefined && environment.tokenFile !== undefined) {
    throw new UsageFault(`${variables.token} and ${variables.tokenFile} are both set: unset one`);
  }
  const file = tokenFile ?? environment.tokenFile;
  if (file !== undefined) {
    const text = (await readNamed('the file with the token', file)).toString('utf8');
    return toToken(text, tokenFile === undefined ? variables.tokenFile : '--token-file');
  }
  return environment.token === undefined ? undefined : toToken(environment.token, variables.token);
}

function toToken(text: string, source: string): Secret {
  const token = text.trim();
  // Anything else cannot travel in a header, and the library that builds it would repeat the text in its error.
  if (!/^[\x21-\x7e]+$/.test(token)) throw new UsageFault(`${source}: expected one token of printable ASCII`);
  return new Secret(token);
}

async function readNamed(what: string, file: string): Promise<Buffer> {
  try {
    return await readFile(file);
  } catch (error) {
    throw new UsageFault(`${what} cannot be read: ${systemCodeOf(error)}`, { cause: error });
  }
}
