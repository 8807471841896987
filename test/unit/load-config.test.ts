import { generateKeyPairSync } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { digestOf } from '../../src/config/access.js';
import { type Config, loadConfig } from '../../src/config/load.js';
import { formatProblem } from '../../src/config/problems.js';
import type { Environment } from '../../src/config/settings.js';

// A key pair of these tests alone, valid for a hundred years.
const CERTIFICATE = `
-----BEGIN CERTIFICATE-----
MIIBmzCCAUGgAwIBAgIUbhLVc9AJpft3IMQ5ZPLCzweDOF0wCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTEwNDgzNVoYDzIxMjYxMDI4
MTA0ODM1WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAATr0iP55MmXSJC/3Ts7MGMXqvJeZZinUty//58kJXV1Q67kjU8LWmcY
Je9hZLZYvn1vWvzp6ZRpqBuE71yBmjouo28wbTAdBgNVHQ4EFgQUCW28HDamNXnU
VmHCzy8rROygPxswHwYDVR0jBBgwFoAUCW28HDamNXnUVmHCzy8rROygPxswDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSAAwRQIgbh4LLSDEtudQyetOcrasMO3Gi+Iqx7x5YVRbQPGPI6MCIQCD
97JXLhpTCRBeyhVPw55IOdJD++vkYyuyNgguWkB22w==
-----END CERTIFICATE-----
`;
const PRIVATE_KEY = `
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg5gTAA5qWa9P83KVm
Q5JNG2Z/ArdsupkU4eqHQaCEJEihRANCAATr0iP55MmXSJC/3Ts7MGMXqvJeZZin
Uty//58kJXV1Q67kjU8LWmcYJe9hZLZYvn1vWvzp6ZRpqBuE71yBmjou
-----END PRIVATE KEY-----
`;
const KEYSPACES = 'keyspaces: [{ name: shop, prefix: shop_ }]';
const CALLERS = `callers: [{ name: a, token_sha256: "${'0'.repeat(64)}", roles: [admin], keyspaces: [shop], organizations: '*' }]`;

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'keyreeve-config-'));
});
afterEach(() => rm(folder, { recursive: true }));

async function file(name: string, text: string): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, text);
  return path;
}

async function problemsOf(env: Environment): Promise<string[]> {
  const config = await loadConfig(env);
  return Array.isArray(config) ? config.map(formatProblem) : [];
}

async function configOf(env: Environment): Promise<Config> {
  const config = await loadConfig(env);
  if (Array.isArray(config)) throw new Error(config.map(formatProblem).join('\n'));
  return config;
}

describe('the configuration', () => {
  test('is that of the shipped keyspaces where nothing is set', async () => {
    const { settings, keyspaces, accessFiles, accessDigest, ...rest } = await configOf({});
    expect(accessFiles.callers.path).toBeUndefined();
    expect(accessDigest).toBe(await digestOf(accessFiles));
    expect(settings.keyspacesFile).toBe('config/keyspaces.yaml');
    expect(keyspaces.size).toBe(5);
    expect(rest).toEqual({});
  });

  describe('in a folder of somebody else', () => {
    const before = process.cwd();
    beforeEach(() => process.chdir(folder));
    afterEach(() => process.chdir(before));

    test('has the example keyspaces where there are none, and says so', async () => {
      const { keyspaces, exampleKeyspaces } = await configOf({});
      expect(keyspaces.size).toBe(5);
      expect(exampleKeyspaces).toBe(join(before, 'config', 'keyspaces.yaml'));
    });

    test('has no examples where there are keyspaces, right or wrong, or others are named', async () => {
      await mkdir('config');
      await writeFile(join('config', 'keyspaces.yaml'), KEYSPACES);
      const { keyspaces, exampleKeyspaces } = await configOf({});
      expect([[...keyspaces.keys()], exampleKeyspaces]).toEqual([['shop'], undefined]);
      await writeFile(join('config', 'keyspaces.yaml'), 'keyspaces: []');
      expect(await problemsOf({})).toEqual([expect.stringContaining('config/keyspaces.yaml: keyspaces')]);
      await rm('config', { recursive: true });
      expect(await problemsOf({ KEYREEVE_KEYSPACES: 'config/keyspaces.yaml' })).toEqual([
        'KEYREEVE_KEYSPACES: "config/keyspaces.yaml"; expected a file that can be read (ENOENT)',
      ]);
    });
  });

  test('holds what all the files say', async () => {
    const config = await configOf({
      KEYREEVE_KEYSPACES: await file('keyspaces.yaml', KEYSPACES),
      KEYREEVE_CALLERS: await file('callers.yaml', CALLERS),
      KEYREEVE_TLS_CERT: await file('cert.pem', CERTIFICATE),
      KEYREEVE_TLS_KEY: await file('key.pem', PRIVATE_KEY),
    });
    expect([...config.keyspaces.keys()]).toEqual(['shop']);
    expect(config.callers?.byTokenDigest.size).toBe(1);
    expect(config.tls?.certificate).toBe(CERTIFICATE);
    expect(config.tls?.privateKey.reveal()).toBe(PRIVATE_KEY);
    const body = PRIVATE_KEY.split('\n')[2] ?? '';
    for (const rendering of [JSON.stringify(config), inspect(config, { depth: null, showHidden: true })]) {
      expect(rendering).not.toContain(body);
    }
  });

  test('has the problems of the settings and of every file reported together', async () => {
    const keyspaces = await file('keyspaces.yaml', 'keyspaces: [{ name: Shop, prefix: shop_ }]');
    const callers = await file('callers.yaml', CALLERS.replace('admin', 'root'));
    expect(
      await problemsOf({
        KEYREEVE_LOG_LEVEL: 'loud',
        KEYREEVE_KEYSPACES: keyspaces,
        KEYREEVE_CALLERS: callers,
        KEYREEVE_TLS_CERT: await file('cert.pem', 'not PEM'),
        KEYREEVE_TLS_KEY: await file('key.pem', 'not PEM'),
      }),
    ).toEqual([
      'KEYREEVE_LOG_LEVEL: "loud"; expected one of trace, debug, info, warn, error, fatal, silent',
      `${keyspaces}: keyspaces[0].name: "Shop"; expected 1 to 63 characters of a-z 0-9 -, the first a letter`,
      `${callers}: callers[0].roles[0]: "root"; expected one of verifier, provisioner, auditor, admin`,
      `KEYREEVE_TLS_CERT: "${join(folder, 'cert.pem')}"; expected a certificate as PEM`,
      `KEYREEVE_TLS_KEY: "${join(folder, 'key.pem')}"; expected a private key as PEM, without a passphrase`,
    ]);
  });

  test('names the variable behind each file that cannot be read', async () => {
    const gone = join(folder, 'gone');
    expect(
      await problemsOf({
        KEYREEVE_KEYSPACES: gone,
        KEYREEVE_CALLERS: folder,
        KEYREEVE_TLS_CERT: gone,
        KEYREEVE_TLS_KEY: gone,
      }),
    ).toEqual([
      `KEYREEVE_KEYSPACES: "${gone}"; expected a file that can be read (ENOENT)`,
      `KEYREEVE_CALLERS: "${folder}"; expected a file that can be read (EISDIR)`,
      `KEYREEVE_TLS_CERT: "${gone}"; expected a file that can be read (ENOENT)`,
      `KEYREEVE_TLS_KEY: "${gone}"; expected a file that can be read (ENOENT)`,
    ]);
  });

  test('lets callers name no keyspace that the keyspaces file lacks', async () => {
    const callers = await file('callers.yaml', CALLERS);
    expect(await problemsOf({ KEYREEVE_CALLERS: callers })).toEqual([
      `${callers}: callers[0].keyspaces[0]: "shop"; expected one of hotmetal, metal, metlo, hookdeploy, hygiara`,
    ]);
  });

  test('takes no private key of another certificate', async () => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const key = await file('key.pem', privateKey.export({ type: 'pkcs8', format: 'pem' }).toString());
    expect(await problemsOf({ KEYREEVE_TLS_CERT: await file('cert.pem', CERTIFICATE), KEYREEVE_TLS_KEY: key })).toEqual(
      [`KEYREEVE_TLS_KEY: "${key}"; expected the key of the certificate`],
    );
  });
});
