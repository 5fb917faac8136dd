// Graphile Worker. Settings: perfTest/graphile.config.js of its repository, with the concurrency that was asked for; or none.

import { Logger, makeWorkerUtils, run } from 'graphile-worker';
import { batches, perform } from './runner.mjs';

const logger = new Logger(() => (level, message) => {
  if (level === 'error' || level === 'warning') {
    process.stderr.write(`${message}\n`);
  }
});

async function enqueue({ database_url: connectionString }) {
  const utils = await makeWorkerUtils({ connectionString, logger });
  await utils.migrate();
  for (const numbers of batches(10_000)) {
    await utils.addJobs(numbers.map((number) => ({ identifier: 'debit', payload: { number } })));
  }
  await utils.release();
}

async function work({ mode, database_url: connectionString, in_flight: concurrentJobs }, debit) {
  const perfTest = {
    concurrentJobs,
    maxPoolSize: concurrentJobs + 1,
    localQueue: { size: 500, refetchDelay: { durationMs: 10 } },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
  };
  const settings = mode === 'perf-test' ? perfTest : {};
  const taskList = { debit: ({ number }) => debit(number) };
  await run({ preset: { worker: { connectionString, logger, ...settings } }, taskList, noHandleSignals: true });
}

await perform({ enqueue, work });
