// Runs the suite http-cache-tests through the sidecar: node cache-tests.mjs PROGRAM SUITE. Prints the table, and writes
// it to target/bench/cache-tests.md. Ends with 1 if more `required` cases fail than are known to, or fewer `optimal` ones pass.
import { spawn } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { createServer, connect } from 'node:net'
import { dirname, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

// The release on npm is older than RFC 9111, whose section 5.1 has the first member of a list in Age count, and what is no
// number ignored. It wants these replies taken for stale: age-parse-nonnumeric, -negative and -float, where nothing in Age is a
// number, and -prefix-twoline, -dup-0, -dup-0-twoline and -dup-old, whose first member is young. The suite's main branch
// requires the first six of the same replies to be taken for fresh. In place of the seventh, `Age: 3600, 3600` in one line, it
// has the two members in two lines, which is the same field (RFC 9110 section 5.3), and requires that to be taken for fresh.
const MOST_REQUIRED_FAILURES = 7
const LEAST_OPTIMAL_PASSES = 77

const [program, suite] = process.argv.slice(2).map(path => resolve(path))
const root = resolve(dirname(fileURLToPath(import.meta.url)), '..')

const freePort = () => new Promise(resolve => {
  const server = createServer().listen(0, '127.0.0.1', () => {
    const { port } = server.address()
    server.close(() => resolve(port))
  })
})
const accepts = port => new Promise(resolve => {
  const socket = connect(port, 'localhost')
  socket.on('connect', () => { socket.destroy(); resolve(true) })
  socket.on('error', () => resolve(false))
})
async function started (port) {
  for (const end = Date.now() + 20000; Date.now() < end;) {
    if (await accepts(port)) return
    await new Promise(resolve => setTimeout(resolve, 50))
  }
  throw new Error(`nothing listens on port ${port}`)
}

const [origin, front] = [await freePort(), await freePort()]
// The suite's service fails on purpose, and tells its requests apart by their number: none may be sent twice.
const children = [
  spawn(process.execPath, ['server/server.mjs'], {
    cwd: suite,
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, npm_config_protocol: 'http', npm_config_port: origin, npm_config_pidfile: '/dev/null' }
  }),
  spawn(program, ['--listen', `127.0.0.1:${front}`, '--upstream', `http://localhost:${origin}`, '--cache', '16MiB',
    '--breaker', 'off', '--retries', '0', '--queue-budget', '10s', '--log-level', 'error'], { stdio: ['ignore', 'ignore', 'inherit'] })
]
process.on('exit', () => children.forEach(child => child.kill()))
await Promise.all([origin, front].map(started))

const load = path => import(pathToFileURL(resolve(suite, path)))
const { runTests, getResults } = await load('client/runner.mjs')
const { default: suites } = await load('tests/index.mjs')
const { default: fetch } = await load('node_modules/node-fetch/lib/index.js')
  .catch(() => load('../node-fetch/lib/index.js'))
await runTests(suites, fetch, false, `http://localhost:${front}`)

const results = getResults()
const all = suites.flatMap(({ tests }) => tests)
// As the suite's site counts: a case is not tested where one that it depends on does not pass, or its setup does not.
const isTested = ({ id, depends_on: needs = [] }) => results[id] === true ||
  (results[id]?.[0] === 'Assertion' && needs.every(id => results[id] === true && isTested(all.find(test => test.id === id))))
const counts = () => ({ passed: 0, failed: [], untested: [] })
const found = { required: counts(), optimal: counts() }
const rows = []
for (const { name, tests } of suites) {
  const row = { required: [0, 0], optimal: [0, 0] }
  for (const test of tests) {
    const kind = test.kind ?? 'required'
    if (test.browser_only || !row[kind]) continue
    row[kind][1]++
    if (results[test.id] === true) {
      row[kind][0]++
      found[kind].passed++
    } else {
      const why = `${test.id}: ${[results[test.id]].flat().join(': ').split('\n')[0]}`
      found[kind][isTested(test) ? 'failed' : 'untested'].push(why)
    }
  }
  rows.push(`| ${name} | ${row.required.join(' of ')} | ${row.optimal.join(' of ')} |`)
}
const of = ({ passed, failed, untested }) => `${passed} of ${passed + failed.length + untested.length}`
const list = (title, lines) => [`${title}: ${lines.length}`, '', ...lines.map(line => `- ${line}`), '']
const report = [
  '# http-cache-tests', '',
  '| part | `required` passed | `optimal` passed |', '|---|---|---|', ...rows,
  `| all | ${of(found.required)} | ${of(found.optimal)} |`, '',
  ...list('`required` that fail', found.required.failed),
  ...list('`required` that cannot be tested', found.required.untested),
  ...list('`optimal` that fail', found.optimal.failed),
  ...list('`optimal` that cannot be tested', found.optimal.untested)
].join('\n')
console.log(report)
mkdirSync(resolve(root, 'target/bench'), { recursive: true })
writeFileSync(resolve(root, 'target/bench/cache-tests.md'), report)
process.exit(found.required.failed.length > MOST_REQUIRED_FAILURES || found.optimal.passed < LEAST_OPTIMAL_PASSES ? 1 : 0)
