/**
 * better-auth's apiKey plugin: `node better-auth.mjs memory|sqlite FOLDER`. Its server calls `auth.api.verifyApiKey`
 * from a plain handler of node:http, since the plugin has no HTTP endpoint for it. Its rate limit is off, which by
 * default admits 10 requests a day; all else is as it comes. One key, so that the memory adapter, which looks through
 * all of them, finds it first.
 */
import console from 'node:console';
import { createServer } from 'node:http';
import { join } from 'node:path';
import process from 'node:process';
import { apiKey } from '@better-auth/api-key';
import { betterAuth } from 'better-auth';
import { memoryAdapter } from 'better-auth/adapters/memory';
import { getMigrations } from 'better-auth/db/migration';
import { SqliteDialect } from 'kysely';
import Database from 'libsql';

const [, , storage, folder] = process.argv;
const options = {
  baseURL: 'http://127.0.0.1',
  secret: 'of no use to anyone but this measurement',
  emailAndPassword: { enabled: true },
  telemetry: { enabled: false },
  plugins: [apiKey({ rateLimit: { enabled: false } })],
  database:
    storage === 'memory'
      ? memoryAdapter({ user: [], session: [], account: [], verification: [], apikey: [] })
      : {
          dialect: new SqliteDialect({ database: new Database(join(folder, `better-auth-${process.pid}.db`)) }),
          type: 'sqlite',
        },
};
if (storage === 'sqlite') await (await getMigrations(options)).runMigrations();
const auth = betterAuth(options);

const { user } = await auth.api.signUpEmail({
  body: { name: 'ada', email: 'ada@example.com', password: 'correct horse battery' },
});
const { key } = await auth.api.createApiKey({ body: { name: 'bench', userId: user.id } });

const server = createServer((request, response) => {
  const { 'x-api-key': presented } = request.headers;
  auth.api.verifyApiKey({ body: { key: presented } }).then(
    (verified) => response.setHeader('content-type', 'application/json').end(JSON.stringify(verified)),
    () => response.writeHead(500).end(),
  );
});
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port, key })));
