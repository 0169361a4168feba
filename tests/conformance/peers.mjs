// Runs other people's readers and writers: node peers.mjs JOBS.json
//
// JOBS.json is a list of {peer, input, output, options}. A job of splat-transform converts `input` to `output`, both by
// extension. A job of three or gaussian-splats-3d reads `input` and writes what a renderer would draw as JSON to
// `output`: centers [N, 3], covariances [N, 6] (xx xy xz yy yz zz), colors [N, 4] bytes, and harmonics, where there are
// some; or, where `output` ends in .ksplat, writes that.
//
// Prints a JSON list with null or an error message for each job.

import fs from 'node:fs';
import path from 'node:path';

const bytesOf = (file) => new Uint8Array(fs.readFileSync(file));
const bufferOf = (file) => {
    const bytes = fs.readFileSync(file);
    return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
};
const write = (file, value) => fs.writeFileSync(file, typeof value === 'string' ? value : Buffer.from(value));
const plain = (array) => (array === undefined ? undefined : Array.from(array));

async function splatTransform({ input, output, options }) {
    const lib = await import('@playcanvas/splat-transform');
    lib.WorkerQueue.maxWorkers = 0;
    const settings = { iterations: 10, lodSelect: [], unbundled: false, lodChunkCount: 512, lodChunkExtent: 16, ...options };
    const source = new lib.MemoryReadFileSystem();
    const folder = path.dirname(input);
    const name = path.basename(input);
    const names = name === 'meta.json' ? fs.readdirSync(folder) : [name];
    for (const each of names) source.set(each, bytesOf(path.join(folder, each)));
    let fileSystem = source;
    let inside = name;
    if (name.endsWith('.sog')) {
        fileSystem = new lib.ZipReadFileSystem(await source.createSource(name));
        inside = 'meta.json';
    }
    const tables = await lib.readFile({
        filename: inside, inputFormat: lib.getInputFormat(inside), options: settings, params: [], fileSystem
    });
    const target = new lib.MemoryFileSystem();
    await lib.writeFile({
        filename: path.basename(output),
        outputFormat: lib.getOutputFormat(path.basename(output), settings),
        dataTable: tables.length === 1 ? tables[0] : lib.combine(tables),
        options: settings
    }, target);
    for (const [each, bytes] of target.results) write(path.join(path.dirname(output), path.basename(each)), bytes);
}

async function three({ input, output }) {
    if (input.endsWith('.glb')) {
        const { GLTFLoader } = await import('three/addons/loaders/GLTFLoader.js');
        const { GLTFGaussianSplatLoaderExtension } =
            await import('three/addons/loaders/GLTFGaussianSplatLoaderExtension.js');
        const loader = new GLTFLoader();
        loader.register((parser) => new GLTFGaussianSplatLoaderExtension(parser));
        const found = await loader.parseAsync(bufferOf(input), '');
        found.scene.updateMatrixWorld(true);
        found.scene.traverse((node) => {
            if (node.splatGeometry) {
                write(output, JSON.stringify({ ...drawn(node.splatGeometry), matrix: node.matrixWorld.elements }));
            }
        });
        return;
    }
    const { SPZLoader } = await import('three/addons/loaders/SPZLoader.js');
    const geometry = await new SPZLoader().parse(bufferOf(input));
    write(output, JSON.stringify(drawn(geometry)));
}

function drawn(geometry) {
    const found = {};
    for (const [name, attribute] of Object.entries(geometry.attributes)) found[name] = plain(attribute.array);
    return found;
}

async function gaussianSplats3d({ input, output, options }) {
    globalThis.window ??= globalThis; // it waits with window.setTimeout
    const lib = await import('@mkkellogg/gaussian-splats-3d');
    const degree = options?.degree ?? 2;
    const content = bufferOf(input);
    let buffer;
    if (output.endsWith('.ksplat')) {
        buffer = await lib.PlyLoader.loadFromFileData(content, 0, options.level, true, degree);
        write(output, new Uint8Array(buffer.bufferData));
        return;
    }
    if (input.endsWith('.splat')) { // its buffers sort the Gaussians; what it parses is in the file's order
        const { splats } = lib.SplatParser.parseStandardSplatToUncompressedSplatArray(content);
        write(output, JSON.stringify({ splats }));
        return;
    }
    if (input.endsWith('.ksplat')) buffer = await lib.KSplatLoader.loadFromFileData(content);
    else if (input.endsWith('.spz')) buffer = await lib.SpzLoader.loadFromFileData(bytesOf(input), 0, 0, false, degree);
    else buffer = await lib.PlyLoader.loadFromFileData(content, 0, 0, false, degree);
    const count = buffer.getSplatCount();
    const stored = buffer.getMinSphericalHarmonicsDegree();
    const coefficients = [0, 9, 24][stored];
    const { minSphericalHarmonicsCoeff: least, maxSphericalHarmonicsCoeff: most } = buffer;
    const centers = new Float32Array(3 * count);
    const covariances = new Float32Array(6 * count);
    const colors = new Uint8Array(4 * count);
    const harmonics = new Float32Array(coefficients * count);
    buffer.fillSplatCenterArray(centers, undefined, 0, count - 1, 0);
    buffer.fillSplatCovarianceArray(covariances, undefined, 0, count - 1, 0, 0);
    buffer.fillSplatColorArray(colors, 0, 0, count - 1, 0);
    if (stored) buffer.fillSphericalHarmonicsArray(harmonics, stored, undefined, 0, count - 1, 0, 0);
    write(output, JSON.stringify({
        centers: plain(centers), covariances: plain(covariances), colors: plain(colors),
        // It hands bytes on to its shader as they are.
        harmonics: plain(buffer.compressionLevel === 2 ? harmonics.map((byte) => least + byte / 255 * (most - least)) : harmonics),
        degree: stored
    }));
}

const PEERS = { 'splat-transform': splatTransform, 'three': three, 'gaussian-splats-3d': gaussianSplats3d };

console.log = console.warn = console.info = (...words) => console.error(...words); // stdout is for the answer
const late = (milliseconds) => new Promise((_, reject) => {
    setTimeout(() => reject(new Error(`no answer within ${milliseconds} ms`)), milliseconds);
});
const jobs = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
// It takes any process with a `window` for a browser, so it comes before the one that needs such a thing.
if (jobs.some((job) => job.peer === 'splat-transform')) await import('@playcanvas/splat-transform');
const answers = [];
for (const job of jobs) {
    try {
        await Promise.race([PEERS[job.peer](job), late(20000)]);
        answers.push(null);
    } catch (error) {
        answers.push(String(error?.stack ?? error).split('\n').slice(0, 3).join(' | '));
    }
}
process.stdout.write(JSON.stringify(answers));
