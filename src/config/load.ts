/** What a server is configured with: the settings and the files that they name, or every problem of them all at once. */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';

import type { Keyspace } from '../keys/keyspace.js';
import { Secret } from '../keys/secret.js';
import { type Callers, parseCallers } from './callers.js';
import { parseKeyspaces } from './keyspaces.js';
import type { Problem } from './problems.js';
import { type Environment, type NamedFile, namedFiles, parseSettings, type Settings } from './settings.js';

export interface Config {
  readonly settings: Settings;
  /** By name, in the file's order. */
  readonly keyspaces: ReadonlyMap<string, Keyspace>;
  /** Absent: whoever connects is `LOCAL_CALLER`. */
  readonly callers?: Callers;
  readonly tls?: TlsIdentity;
}

/** A certificate, with those that vouch for it, and the key that it fits; both PEM. */
export interface TlsIdentity {
  readonly certificate: string;
  readonly privateKey: Secret;
}

/** @returns the problems inside a file with its path before theirs, those with reading it by its variable */
export async function loadConfig(env: Environment): Promise<Config | Problem[]> {
  const files = namedFiles(env);
  const settings = parseSettings(env);
  const keyspaces = await loadKeyspaces(files.keyspaces);
  const callers = await loadCallers(files.callers, Array.isArray(keyspaces) ? undefined : keyspaces);
  const tls = await loadTls(files.certificate, files.privateKey);
  if (Array.isArray(settings) || Array.isArray(keyspaces) || Array.isArray(callers) || Array.isArray(tls)) {
    return [settings, keyspaces, callers, tls].flatMap((part) => (Array.isArray(part) ? part : []));
  }
  return { settings, keyspaces, ...(callers && { callers }), ...(tls && { tls }) };
}

async function loadKeyspaces(file: NamedFile): Promise<ReadonlyMap<string, Keyspace> | Problem[]> {
  const text = await readNamed(file);
  return Array.isArray(text) ? text : within(file, parseKeyspaces(text ?? ''));
}

async function loadCallers(
  file: NamedFile,
  keyspaces: ReadonlyMap<string, Keyspace> | undefined,
): Promise<Callers | undefined | Problem[]> {
  const text = await readNamed(file);
  if (text === undefined || Array.isArray(text)) return text;
  return within(file, parseCallers(text, keyspaces));
}

async function loadTls(certificateFile: NamedFile, keyFile: NamedFile): Promise<TlsIdentity | undefined | Problem[]> {
  const [certificate, privateKey] = await Promise.all([readNamed(certificateFile), readNamed(keyFile)]);
  if (Array.isArray(certificate) || Array.isArray(privateKey)) {
    return [certificate, privateKey].flatMap((part) => (Array.isArray(part) ? part : []));
  }
  if (certificate === undefined || privateKey === undefined) return undefined;
  const x509 = attempt(() => new X509Certificate(certificate));
  const key = attempt(() => createPrivateKey(privateKey));
  const problems = [
    ...(x509 ? [] : [fault(certificateFile, 'a certificate as PEM')]),
    ...(key ? [] : [fault(keyFile, 'a private key as PEM, without a passphrase')]),
    ...(x509 && key && !x509.checkPrivateKey(key) ? [fault(keyFile, 'the key of the certificate')] : []),
  ];
  return problems.length > 0 ? problems : { certificate, privateKey: new Secret(privateKey) };
}

async function readNamed(file: NamedFile): Promise<string | undefined | Problem[]> {
  if (file.path === undefined) return undefined;
  try {
    return await readFile(file.path, 'utf8');
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    return [fault(file, `a file that can be read (${code})`)];
  }
}

function within<T>(file: NamedFile, parsed: T | Problem[]): T | Problem[] {
  if (!Array.isArray(parsed)) return parsed;
  return parsed.map(({ path, message }) => ({ path: `${String(file.path)}: ${path}`, message }));
}

function fault(file: NamedFile, expected: string): Problem {
  return { path: file.variable, message: `${JSON.stringify(file.path)}; expected ${expected}` };
}

// What OpenSSL throws tells nobody more, and may hold what it read.
function attempt<T>(parse: () => T): T | undefined {
  try {
    return parse();
  } catch {
    return undefined;
  }
}
