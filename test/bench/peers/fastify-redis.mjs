/**
 * What one would make at home: `node fastify-redis.mjs REDIS_PORT`. A Fastify server that looks a key up in Redis by its
 * digest and judges the record. Fastify's log is off, and ioredis puts the look-ups of a turn into one pipeline, which
 * is not its default and favours it.
 */
import console from 'node:console';
import { createHash, randomBytes } from 'node:crypto';
import process from 'node:process';
import fastify from 'fastify';
import { Redis } from 'ioredis';

const redis = new Redis({ host: '127.0.0.1', port: Number(process.argv[2]), enableAutoPipelining: true });
const key = `hrdly_${randomBytes(24).toString('hex')}`;
const record = {
  key_id: 'key_01m0000000e0080000000000000',
  organization_id: 'acme',
  name: 'bench',
  scopes: ['read'],
  expire_time: '2100-01-01T00:00:00Z',
  revoked: false,
};
await redis.set(placeOf(key), JSON.stringify(record));

const app = fastify();
app.get('/', async (request, reply) => {
  const { 'x-api-key': presented } = request.headers;
  if (typeof presented !== 'string') return reply.code(401).send({ valid: false });
  const found = await redis.get(placeOf(presented));
  if (found === null) return reply.code(401).send({ valid: false });
  const { revoked, expire_time, ...known } = JSON.parse(found);
  if (revoked || Date.parse(expire_time) <= Date.now()) return reply.code(401).send({ valid: false });
  return { valid: true, key: { ...known, expire_time } };
});
await app.listen({ host: '127.0.0.1', port: 0 });
console.log(JSON.stringify({ port: app.server.address().port, key }));

function placeOf(presented) {
  return `key:${createHash('sha256').update(presented).digest('hex')}`;
}
