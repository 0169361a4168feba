"use strict";
// Beside the page: unpacks the scene, sorts it by depth, finds what was clicked.

const NEAR = 0.01, CHUNK = 256, TABLE = 18, BASIC = 17, WIDTH = 2048;
let count = 0, centres, opacities, depths, shownIds, halfway;

onmessage = async ({data: message}) => {
  try {
    if (message.kind === "scene") await load(message);
    else if (message.kind === "sort") sort(message);
    else if (message.kind === "pick") pick(message);
  } catch (error) {
    postMessage({kind: "error", text: String(error.message || error)});
  }
};

async function inflate(pieces) {
  const parts = pieces.map((piece) => Uint8Array.from(atob(piece), (letter) => letter.charCodeAt(0)));
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

// The layout is described in splat/codecs/html/pack.py, the textures in splat.vert.
async function load({header, pieces}) {
  let buffer;
  try {
    buffer = await inflate(pieces);
  } catch {
    throw new Error("The scene in this page is damaged. Download or export it again.");
  }
  count = header.count;
  const degree = header.peaks.length, coefficients = (degree + 1) ** 2 - 1;
  const chunks = Math.ceil(count / CHUNK), start = chunks * TABLE * 4;
  if (buffer.byteLength !== start + count * (BASIC + 3 * coefficients)) {
    throw new Error("The scene in this page is cut short. Download or export it again.");
  }
  const table = new Float32Array(buffer, 0, chunks * TABLE), bytes = new Uint8Array(buffer, start);
  const texels = (perGaussian) => Math.ceil(Math.max(1, count * perGaussian) / WIDTH) * WIDTH;
  const centre = new Uint32Array(4 * texels(1)), shape = new Uint32Array(4 * texels(1));
  const position = new Float32Array(centre.buffer);
  centres = new Float32Array(3 * count);
  opacities = bytes.slice(12 * count, 13 * count);
  depths = new Float32Array(count);
  shownIds = new Uint32Array(count);
  halfway = new Uint32Array(count);
  for (let i = 0; i < count; i++) {
    const chunk = (i >> 8) * TABLE;
    const value = (k, share) => table[chunk + k] + share * (table[chunk + 9 + k] - table[chunk + k]);
    const byte = (plane) => bytes[plane * count + i];
    for (let k = 0; k < 3; k++) {
      const share = (byte(2 * k) | byte(2 * k + 1) << 8) / 65535;
      position[4 * i + k] = centres[3 * i + k] = value(k, share);
    }
    centre[4 * i + 3] = byte(13) | byte(14) << 8 | byte(15) << 16 | byte(16) << 24;
    const half = (k) => toHalf(value(k, byte(k + 3) / 255));
    shape[4 * i] = half(6) | half(7) << 16;
    shape[4 * i + 1] = half(8) | toHalf(opacities[i] / 255) << 16;
    const [sx, sy, sz] = [3, 4, 5].map((k) => scaleBits(value(k, byte(k + 3) / 255)));
    shape[4 * i + 2] = sx | sy << 21;
    shape[4 * i + 3] = sy >>> 11 | sz << 10;
  }
  const perGaussian = [0, 1, 2, 4][degree];
  const harmonics = new Uint32Array(4 * texels(perGaussian));
  for (let c = 0; c < coefficients; c++) {
    const red = bytes.subarray((BASIC + 3 * c) * count);
    for (let i = 0; i < count; i++) {
      harmonics[4 * perGaussian * i + c] =
        (red[i] ^ 128) | (red[count + i] ^ 128) << 8 | (red[2 * count + i] ^ 128) << 16;
    }
  }
  postMessage({kind: "scene", width: WIDTH, centre, shape, harmonics}, [centre.buffer, shape.buffer, harmonics.buffer]);
}

const floatBits = new Float32Array(1), bits = new Uint32Array(floatBits.buffer);

// A scale from its logarithm: the exponent and 13 bits of the mantissa of a positive float, rounded; 21 bits.
function scaleBits(logarithm) {
  floatBits[0] = Math.exp(Math.min(80, logarithm));
  return bits[0] + 512 >>> 10;
}

// IEEE half precision, rounded to nearest; beyond its range the largest finite value.
function toHalf(value) {
  floatBits[0] = Math.max(-65504, Math.min(65504, value));
  const word = bits[0], sign = word >>> 16 & 0x8000, exponent = (word >>> 23 & 255) - 112;
  if (exponent > 0) return sign | Math.min(0x7bff, (exponent << 10) + ((word & 0x7fffff) + 0x1000 >>> 13));
  if (exponent < -10) return sign;
  return sign | ((word & 0x7fffff | 0x800000) >>> 13 - exponent) + 1 >>> 1;
}

// Back to front by camera z: two passes of counting sort over the bits of z, which order positive floats.
function sort({row, shift, number}) {
  const keys = new Uint32Array(depths.buffer), [x, y, z] = row;
  let shown = 0;
  for (let i = 0, k = 0; i < count; i++, k += 3) {
    const depth = x * centres[k] + y * centres[k + 1] + z * centres[k + 2] + shift;
    if (depth >= NEAR) {
      depths[shown] = depth;
      shownIds[shown++] = i;
    }
  }
  const low = new Uint32Array(65537), high = new Uint32Array(65537);
  for (let i = 0; i < shown; i++) {
    const key = keys[i] = ~keys[i];
    low[(key & 65535) + 1]++;
    high[(key >>> 16) + 1]++;
  }
  for (let i = 0; i < 65536; i++) {
    low[i + 1] += low[i];
    high[i + 1] += high[i];
  }
  const order = new Uint32Array(shown);
  for (let i = 0; i < shown; i++) halfway[low[keys[i] & 65535]++] = i;
  for (let i = 0; i < shown; i++) order[high[keys[halfway[i]] >>> 16]++] = shownIds[halfway[i]];
  postMessage({kind: "order", order, number}, [order.buffer]);
}

// Along a ray: how far away what was clicked is. Of the centres that are no veil, the one that is near and near
// the ray: a degree off counts as much as twice the distance.
function pick({origin, direction}) {
  let least = Infinity, distance = 0;
  for (let i = 0, k = 0; i < count; i++, k += 3) {
    if (opacities[i] < 64) continue;
    const x = centres[k] - origin[0], y = centres[k + 1] - origin[1], z = centres[k + 2] - origin[2];
    const along = x * direction[0] + y * direction[1] + z * direction[2];
    if (along < NEAR) continue;
    const cost = along * (1 + ((x * x + y * y + z * z) / (along * along) - 1) / 3e-4);
    if (cost < least) [least, distance] = [cost, along];
  }
  if (least < Infinity) postMessage({kind: "picked", origin, direction, distance});
}
