// Checks the dashboards of grafana/dashboards against the types that Grafana publishes (@grafana/schema): each is written out
// as a constant of the type Dashboard, its panels' options and field settings as constants of their kinds' types, and tsc says
// what does not fit. A property that the types do not know is an error too.

import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const here = path.dirname(fileURLToPath(import.meta.url))
const dashboards = process.argv[2]
const out = path.join(here, 'checked')
const composable = kind => `@grafana/schema/dist/esm/raw/composable/${kind}/panelcfg/x/${KINDS[kind]}PanelCfg_types.gen.d.ts`
const KINDS = { timeseries: 'TimeSeries', stat: 'Stat', table: 'Table' }
// Grafana keeps what a kind's settings of fields are in `custom`; a number alone has none.
const WITH_FIELDS = ['timeseries', 'table']

// A file of JSON has the values of enumerations as strings, which TypeScript takes for a type of their own.
const HEAD = `
import type { Dashboard, DataSourceRef, Panel, RowPanel } from '@grafana/schema'
${Object.keys(KINDS).map(kind => `import type * as ${kind} from '${composable(kind)}'`).join('\n')}

type Plain<T> = T extends string ? \`\${T}\` : T extends Array<infer U> ? Plain<U>[] : T extends object ? { [K in keyof T]: Plain<T[K]> } : T
type Query = { refId: string; expr: string; legendFormat: string; datasource: DataSourceRef; editorMode: 'code'
               instant?: boolean; range?: boolean; exemplar?: boolean; format?: 'table' | 'time_series' | 'heatmap' }
`

function source(dashboard) {
  const lines = [HEAD]
  // What an annotation asks is the data source's own, like the queries of panels.
  const { panels, annotations: { list }, ...rest } = dashboard
  const asked = list.map(({ target }) => target)
  const annotations = { list: list.map(({ target, ...annotation }) => annotation) }
  lines.push(`export const page: Plain<Omit<Dashboard, 'panels'>> = ${JSON.stringify({ ...rest, annotations })}`)
  lines.push(`export const annotated: Pick<Query, 'refId' | 'expr'>[] = ${JSON.stringify(asked)}`)
  for (const panel of panels) {
    if (panel.type === 'row') {
      lines.push(`export const row${panel.id}: Plain<RowPanel> = ${JSON.stringify(panel)}`)
      continue
    }
    if (!KINDS[panel.type]) throw new Error(`a panel of kind ${panel.type}, whose types are not looked at`)
    lines.push(`export const panel${panel.id}: Plain<Panel> = ${JSON.stringify(panel)}`)
    lines.push(`export const options${panel.id}: Plain<Partial<${panel.type}.Options>> = ${JSON.stringify(panel.options)}`)
    lines.push(`export const queries${panel.id}: Query[] = ${JSON.stringify(panel.targets)}`)
    const custom = panel.fieldConfig.defaults.custom
    if (WITH_FIELDS.includes(panel.type)) {
      lines.push(`export const custom${panel.id}: Plain<Partial<${panel.type}.FieldConfig>> = ${JSON.stringify(custom ?? {})}`)
    } else if (custom) {
      throw new Error(`panel ${panel.id} of ${dashboard.uid} has settings of fields that its kind does not know`)
    }
  }
  return lines.join('\n')
}

mkdirSync(out, { recursive: true })
const version = JSON.parse(readFileSync(path.join(here, 'node_modules/@grafana/schema/package.json'))).version
console.log(`version ${version}`)
const names = readdirSync(dashboards).filter(name => name.endsWith('.json'))
let panels = 0
for (const name of names) {
  const dashboard = JSON.parse(readFileSync(path.join(dashboards, name)))
  panels += dashboard.panels.length
  writeFileSync(path.join(out, name.replace(/json$/, 'ts')), source(dashboard))
}
// What must be refused, so that a check that takes everything is seen.
writeFileSync(path.join(out, 'refused.ts'), `${HEAD}
// @ts-expect-error: no such property
export const unknown: Plain<Panel> = { type: 'stat', tittle: 'misspelt' }
// @ts-expect-error: no such value
export const value: Plain<Partial<stat.Options>> = { colorMode: 'colourful' }
// @ts-expect-error: a number is wanted
export const kind: Plain<Omit<Dashboard, 'panels'>> = { schemaVersion: '41' }
`)
const files = [...names.map(name => name.replace(/json$/, 'ts')), 'refused.ts'].map(name => path.join(out, name))
const checked = spawnSync(process.execPath, [path.join(here, 'node_modules/typescript/bin/tsc'), '--noEmit', '--strict',
  '--skipLibCheck', '--target', 'es2022', '--module', 'esnext', '--moduleResolution', 'bundler', ...files],
  { cwd: here, encoding: 'utf8' })
console.log(checked.stdout)
if (checked.status === 0 && names.length > 0) {
  console.log(`${names.length} dashboards with ${panels} panels`)
  console.log('ok schema')
} else {
  console.log(`FAIL schema: ${(checked.stdout + checked.stderr).trim().split('\n').slice(0, 5).join(' ')}`)
  process.exitCode = 1
}
