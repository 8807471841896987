/**
 * The Dockerfile, tried without Docker: its build's steps on the files that it is given, and what comes of them run as
 * another user, who can write to the data folder alone.
 */
import { chmod, chown, cp, mkdir, readFile, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

import { execFormOf, ignoreRules, readDockerfile, type Stage, textsOf } from '../support/dockerfile.js';
import { freePort } from '../support/free-port.js';
import { makeGuardedFolder } from '../support/guard.js';
import { runCommand } from '../support/run-command.js';
import { startService } from '../support/service.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const [build, image] = readDockerfile(join(ROOT, 'Dockerfile')) as [Stage, Stage];
const COMMAND = 'dist/cli/main.js';
/** Nobody in particular; the image's own user is another one, and as little of root as this. */
const SOMEBODY = 1000;

const isGiven = ignoreRules(join(ROOT, '.dockerignore'));
const READ = [
  ...['package.json', 'package-lock.json', 'scripts/build.sh', 'scripts/codegen.sh'],
  ...['buf.gen.yaml', 'buf.yaml', 'proto/keyreeve/v1/key.proto'],
  ...['tsconfig.build.json', 'tsconfig.json', 'src/main.ts'],
];
const PACKED = ['LICENSE', 'README.md', 'config/callers.example.yaml', 'config/keyspaces.yaml'];
const NOT_READ = [
  '.git/config',
  '.env',
  '.npmrc',
  'data/keyreeve.db',
  'dist/main.js',
  'node_modules/a',
  'src/gen/a.ts',
];

test('the image’s build makes, of the files that it is given, a service that serves and is healthy as the image runs it', async () => {
  await using folder = await makeGuardedFolder(join(tmpdir(), 'keyreeve-image-'));
  const built = join(folder.path, 'build');
  await runBuild(built);

  const data = join(folder.path, 'data');
  await mkdir(data, { mode: 0o700 });
  const user = process.getuid?.() === 0 ? { uid: SOMEBODY, gid: SOMEBODY } : {};
  if (user.uid !== undefined) await chown(data, user.uid, user.gid);
  await chmod(folder.path, 0o755);
  const program = join(built, 'keyreeve', COMMAND);
  const env = { KEYREEVE_LISTEN: `127.0.0.1:${await freePort()}`, KEYREEVE_DATA_DIR: data };
  const [serve] = textsOf(image, 'CMD').map(execFormOf);
  await using service = await startService(env, { program: [program, ...(serve ?? [])], cwd: built, ...user });

  const [, ...health] = textsOf(image, 'HEALTHCHECK').flatMap(execFormOf);
  const { stdout } = await runCommand(process.execPath, [program, ...health], {
    env: { ...process.env, ...env },
    cwd: built,
    ...user,
  });
  expect(stdout).toBe('SERVING\n');
  expect(await service.stop()).toBe(0);
});

describe('the image’s build', () => {
  test('installs what the lockfile names, and packs, which builds', () => {
    expect(build.image).toBe('node:24-bookworm-slim');
    const steps = build.instructions.map(({ name, text }) => `${name} ${text}`);
    expect(steps.slice(0, 4)).toEqual([
      'WORKDIR /build',
      'COPY package.json package-lock.json ./',
      'RUN npm ci',
      'COPY . ./',
    ]);
    expect(steps[4]).toMatch(/^RUN npm pack && /);
  });

  test('is given what it reads, and nothing that it makes, or that is secret or of this machine', () => {
    for (const path of [...READ, ...PACKED]) expect([path, isGiven(path)]).toEqual([path, true]);
    for (const path of NOT_READ) expect([path, isGiven(path)]).toEqual([path, false]);
  });
});

describe('the image', () => {
  test('is small: all but the package and what that depends on stays behind', () => {
    expect(image.image).toBe(build.image);
    const copied = textsOf(image, 'COPY');
    expect(copied).toEqual([`--from=${build.name} /build/keyreeve /usr/local/lib/keyreeve`]);
  });

  test('runs as nobody who could change it, and writes to its volume alone', () => {
    expect(textsOf(image, 'USER')).toEqual(['1000:1000']);
    const [data = ''] = textsOf(image, 'VOLUME');
    expect(textsOf(image, 'WORKDIR')).toEqual(['/keyreeve']);
    expect(data).toBe('/keyreeve/data');
    expect(textsOf(image, 'RUN').join()).toContain(`install -d -o node -g node ${data}`);
    expect(textsOf(image, 'ENV')).toEqual([`SQLITE_TMPDIR=${data}`]);
  });

  test('has the command keyreeve, which serves unless it is told otherwise', () => {
    expect(textsOf(image, 'RUN').join()).toContain(`ln -s ../lib/keyreeve/${COMMAND} /usr/local/bin/keyreeve`);
    expect(textsOf(image, 'ENTRYPOINT').map(execFormOf)).toEqual([['keyreeve']]);
    expect(textsOf(image, 'CMD').map(execFormOf)).toEqual([['serve']]);
  });

  test('sets nothing by which it would listen beyond the container unasked', async () => {
    expect(await readFile(join(ROOT, 'Dockerfile'), 'utf8')).not.toMatch(/^ENV.*KEYREEVE/m);
  });
});

/**
 * What the first stage does, in this folder. What takes it longest is there already, made of the same files by the same
 * scripts: the dependencies to build with, and what the compiler makes.
 */
async function runBuild(built: string): Promise<void> {
  await cp(ROOT, built, {
    recursive: true,
    filter: (source) => relative(ROOT, source) === '' || isGiven(relative(ROOT, source)),
  });
  await symlink(join(ROOT, 'node_modules'), join(built, 'node_modules'));
  await cp(join(ROOT, 'dist'), join(built, 'dist'), { recursive: true });
  const env = { ...process.env, npm_config_ignore_scripts: 'true', npm_config_prefer_offline: 'true' };
  for (const command of textsOf(build, 'RUN').slice(1)) await runCommand('sh', ['-c', command], { cwd: built, env });
}
