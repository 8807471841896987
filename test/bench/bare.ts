/** The engines without Keyreeve: what a call of the service is held against. */
import Database from 'libsql';
import { type ClientSession, Long, MongoClient, WriteConcern } from 'mongodb';

const TEXT = 'x'.repeat(500);

/** Writes are durable once they return. */
export function openBareSqlite(path: string) {
  const db = new Database(path);
  db.pragma('journal_mode = WAL');
  db.pragma('synchronous = FULL');
  db.exec('CREATE TABLE a (id INTEGER PRIMARY KEY, text TEXT); CREATE TABLE b (id INTEGER PRIMARY KEY, text TEXT)');
  const a = db.prepare('INSERT INTO a VALUES (:id, :text)');
  const b = db.prepare('INSERT INTO b VALUES (:id, :text)');
  const read = db.prepare('SELECT * FROM a WHERE id = :id');
  const both = db.transaction((id: number) => {
    a.run({ id, text: TEXT });
    b.run({ id, text: TEXT });
  });
  return {
    /** A transaction of two rows. */
    write: (id: number) => both(id),
    read: (id: number) => read.get({ id }),
  };
}

/** @param uri names the database, which is empty */
export async function openBareMongodb(uri: string) {
  const client = await new MongoClient(uri).connect();
  const a = client.db().collection('a');
  const b = client.db().collection('b');
  await a.createIndex({ n: 1 }, { unique: true }, {});
  await b.insertOne({ text: TEXT });
  return {
    /** A transaction of two documents. */
    write: (n: number) =>
      inTransaction(client, async (session) => {
        await a.insertOne({ n, text: TEXT }, { session });
        await b.insertOne({ n, text: TEXT }, { session });
      }),
    read: (n: number) => a.findOne({ n }, { readConcern: { level: 'linearizable' }, maxTimeMS: 5000 }),
    [Symbol.asyncDispose]: () => client.close(),
  };
}

/**
 * Documents that each stand for an organization, so that changes of one can have an order.
 * @param uri names the database, which is empty
 */
export async function openBareHeads(uri: string, heads: readonly string[]) {
  const client = await new MongoClient(uri).connect();
  const organizations = client.db().collection<{ _id: string; sequence: Long }>('organizations');
  const keys = client.db().collection<{ _id: string; text: string }>('keys');
  await organizations.insertMany(heads.map((_id) => ({ _id, sequence: Long.ZERO })));
  await keys.insertOne({ _id: 'none', text: TEXT });
  return {
    /** A transaction of two documents: the head, which counts up, and a new one that has its number. */
    advance: (head: string) =>
      inTransaction(client, async (session) => {
        const update = { $inc: { sequence: Long.ONE } };
        const after = await organizations.findOneAndUpdate({ _id: head }, update, { session, returnDocument: 'after' });
        await keys.insertOne({ _id: `${head}/${String(after?.sequence)}`, text: TEXT }, { session });
      }),
    [Symbol.asyncDispose]: () => client.close(),
  };
}

function inTransaction(client: MongoClient, work: (session: ClientSession) => Promise<void>): Promise<void> {
  const writeConcern = new WriteConcern('majority', undefined, true);
  return client.withSession((session) => session.withTransaction(() => work(session), { writeConcern }));
}
