/** Who may call, and the certificates by which both sides are known: what may change while the service runs. */
import { createHash, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';

import type { Keyspace } from '../keys/keyspace.js';
import { Secret } from '../keys/secret.js';
import { type Callers, parseCallers } from './callers.js';
import { readNamed, within } from './named-file.js';
import { loadPem } from './pem.js';
import type { Problem } from './problems.js';
import type { NamedFile } from './settings.js';

export interface Access {
  /** Absent: whoever connects is `LOCAL_CALLER`. */
  readonly callers?: Callers;
  readonly tls?: TlsIdentity;
}

/** A certificate, with those that vouch for it, and the key that it fits; all PEM. */
export interface TlsIdentity {
  readonly certificate: string;
  readonly privateKey: Secret;
  /** Whose certificates clients must have; absent: none are asked for. */
  readonly clientCa?: string;
}

export interface AccessFiles {
  readonly callers: NamedFile;
  readonly certificate: NamedFile;
  readonly privateKey: NamedFile;
  readonly clientCa: NamedFile;
}

/** @param keyspaces those that callers may be allowed; undefined where they are not known, and then any may be */
export async function loadAccess(
  files: AccessFiles,
  keyspaces: ReadonlyMap<string, Keyspace> | undefined,
): Promise<Access | Problem[]> {
  const callers = await loadCallers(files.callers, keyspaces);
  const tls = await loadTls(files);
  if (Array.isArray(callers) || Array.isArray(tls)) {
    return [callers, tls].flatMap((part) => (Array.isArray(part) ? part : []));
  }
  return { ...(callers && { callers }), ...(tls && { tls }) };
}

/** Of what is in the files, not of when they were written: a copy of the same is no change. Never rejects. */
export async function digestOf({ callers, certificate, privateKey, clientCa }: AccessFiles): Promise<string> {
  const hash = createHash('sha256');
  for (const { path } of [callers, certificate, privateKey, clientCa]) {
    if (path === undefined) continue;
    const text = await readFile(path).catch(() => 'unreadable');
    hash.update(createHash('sha256').update(text).digest());
  }
  return hash.digest('hex');
}

/** When the server's certificate begins to hold, and when it ends. */
export function lifetimeOf({ certificate }: Pick<TlsIdentity, 'certificate'>): { from: Date; until: Date } {
  const { validFrom, validTo } = new X509Certificate(certificate);
  return { from: new Date(validFrom), until: new Date(validTo) };
}

async function loadCallers(
  file: NamedFile,
  keyspaces: ReadonlyMap<string, Keyspace> | undefined,
): Promise<Callers | undefined | Problem[]> {
  const text = await readNamed(file);
  if (text === undefined || Array.isArray(text)) return text;
  return within(file, parseCallers(text, keyspaces));
}

async function loadTls({
  certificate,
  privateKey,
  clientCa,
}: AccessFiles): Promise<TlsIdentity | undefined | Problem[]> {
  const pem = await loadPem({ certificate, privateKey, ca: clientCa });
  if (Array.isArray(pem) || pem.certificate === undefined || pem.privateKey === undefined) {
    return Array.isArray(pem) ? pem : undefined;
  }
  return {
    certificate: pem.certificate,
    privateKey: new Secret(pem.privateKey),
    ...(pem.ca !== undefined && { clientCa: pem.ca }),
  };
}
