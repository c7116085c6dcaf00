// Holds custom resources to the definitions of their projects, as the packages @kubernetes-models/* publish them: by the
// compiled JSON schemas for values, and by the TypeScript types for keys that do not exist, which those schemas let pass.
// Usage: node crds.mjs SCRATCH FILE… Prints one line for each resource: `ok …` or `FAIL …`.
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { parseAllDocuments } from "yaml";

const packages = {
  "cert-manager.io": "cert-manager",
  "gateway.networking.k8s.io": "gateway-api",
  "monitoring.coreos.com": "prometheus-operator",
  "networking.istio.io": "istio",
  "security.istio.io": "istio",
};

const [scratch, ...files] = process.argv.slice(2);
mkdirSync(scratch, { recursive: true });
symlinkSync(join(dirname(fileURLToPath(import.meta.url)), "node_modules"), join(scratch, "node_modules"));

// The same resource in several files is looked at once.
const resources = new Map();
for (const file of files) {
  for (const document of parseAllDocuments(readFileSync(file, "utf8"))) {
    const resource = document.toJS();
    const [group] = (resource?.apiVersion ?? "").split("/");
    if (group in packages) resources.set(JSON.stringify(resource), resource);
  }
}

const looked = [];
for (const resource of resources.values()) {
  const { apiVersion, kind, metadata, ...rest } = resource;
  const [group, version] = apiVersion.split("/");
  const module = `@kubernetes-models/${packages[group]}/${group}/${version}/${kind}`;
  const name = `${kind} ${metadata.namespace ?? ""}/${metadata.name}`;
  const problems = [];
  try {
    const model = new (await import(module))[kind](resource);
    model.validate();
  } catch (error) {
    problems.push(error.message);
  }
  const file = resolve(scratch, `resource${looked.length}.ts`);
  const literal = JSON.stringify({ metadata, ...rest }, null, 1);
  writeFileSync(file, `import { ${kind} } from "${module}";\nexport default new ${kind}(${literal});\n`);
  looked.push({ name, file, problems });
}

const program = ts.createProgram(
  looked.map(({ file }) => file),
  { noEmit: true, strict: true, skipLibCheck: true, module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022,
    moduleResolution: ts.ModuleResolutionKind.Bundler, types: [] },
);
for (const { file, problems } of looked) {
  for (const diagnostic of ts.getPreEmitDiagnostics(program, program.getSourceFile(file))) {
    problems.push(ts.flattenDiagnosticMessageText(diagnostic.messageText, " "));
  }
}
for (const { name, problems } of looked) {
  console.log(problems.length === 0 ? `ok ${name} is of its schema` : `FAIL ${name}: ${problems.join("; ")}`);
}
