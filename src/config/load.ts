/** What a server is configured with: the settings and the files that they name, or every problem of them all at once. */
import type { Keyspace } from '../keys/keyspace.js';
import { type Access, type AccessFiles, digestOf, loadAccess } from './access.js';
import { parseKeyspaces } from './keyspaces.js';
import { isThere, readNamed, within } from './named-file.js';
import { loadPem } from './pem.js';
import type { Problem } from './problems.js';
import { type Environment, type NamedFile, namedFiles, parseSettings, type Settings } from './settings.js';

export interface Config extends Access {
  readonly settings: Settings;
  /** By name, in the file's order. */
  readonly keyspaces: ReadonlyMap<string, Keyspace>;
  /** Present: there was no file at the default's path, so they are the examples that come with the program. */
  readonly exampleKeyspaces?: string;
  /** Where callers and certificates come from. */
  readonly accessFiles: AccessFiles;
  /** Of these, from before they were read. */
  readonly accessDigest: string;
}

/** @returns the problems inside a file with its path before theirs, those with reading it by its variable */
export async function loadConfig(env: Environment): Promise<Config | Problem[]> {
  const files = namedFiles(env);
  const settings = parseSettings(env);
  const keyspaces = await loadKeyspaces(files.keyspaces);
  const accessDigest = await digestOf(files);
  const access = await loadAccess(files, Array.isArray(keyspaces) ? undefined : keyspaces.keyspaces);
  // Read again by each client that is made for Kafka; here it is checked that there is something to read.
  const kafka = await loadPem({ certificate: files.kafkaCertificate, privateKey: files.kafkaKey, ca: files.kafkaCa });
  if (Array.isArray(settings) || Array.isArray(keyspaces) || Array.isArray(access) || Array.isArray(kafka)) {
    return [settings, keyspaces, access, kafka].flatMap((part) => (Array.isArray(part) ? part : []));
  }
  return { settings, ...keyspaces, ...access, accessFiles: files, accessDigest };
}

async function loadKeyspaces(named: NamedFile): Promise<Pick<Config, 'keyspaces' | 'exampleKeyspaces'> | Problem[]> {
  const { instead } = named;
  const isMissing = instead !== undefined && named.path !== undefined && !(await isThere(named.path));
  const file = isMissing ? { ...named, path: instead } : named;
  const text = await readNamed(file);
  const keyspaces = Array.isArray(text) ? text : within(file, parseKeyspaces(text ?? ''));
  return Array.isArray(keyspaces) ? keyspaces : { keyspaces, ...(isMissing && { exampleKeyspaces: instead }) };
}
