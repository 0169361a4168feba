#version 300 es
// One Gaussian as a rectangle around the ellipse inside which its alpha is at least 1/255. Cameras as in OpenCV:
// +x right, +y down, +z forward, pixel centres at +0.5. The constants are those of cuda/include/splat/constants.h.
precision highp float;
precision highp int;
precision highp usampler2D;

const float NEAR = 0.01;
const float EPS2D = 0.3;
const float ALPHA_MIN = 1.0 / 255.0;

uniform usampler2D centres;    // x, y, z as float bits; rotation, as pack.py stores it
uniform usampler2D shapes;     // red and green, blue and opacity as halves; scales, 21 bits each
uniform usampler2D harmonics;  // a word a coefficient from band 1 on: red, green, blue as biased bytes
uniform vec3 rows[3];          // of the world-to-camera rotation
uniform vec3 translation, eye;
uniform vec2 focal, principal, size;  // pixels
uniform vec4 limits;           // where x/z and y/z of the Jacobian are clamped: least, greatest
uniform vec3 peaks;            // largest magnitudes of the bands 1 to 3
uniform int degree;
uniform bool antialiased;

in uint id;
flat out vec4 colour;  // and opacity
flat out vec2 centre;  // pixels
flat out vec3 white;   // p, q, r: sigma is half the square of (p dx - q dy, r dy)

uvec4 texel(usampler2D image, uint i) {
  return texelFetch(image, ivec2(i & 2047u, i >> 11), 0);
}

// Columns of the rotation matrix.
mat3 axes(uint word) {
  vec3 rest = (vec3(uvec3(word, word >> 10, word >> 20) & 1023u) / 1023.0 - 0.5) * sqrt(2.0);
  float most = sqrt(max(0.0, 1.0 - dot(rest, rest)));
  uint largest = word >> 30;
  vec4 q = largest == 0u ? vec4(most, rest) : largest == 1u ? vec4(rest.x, most, rest.yz)
      : largest == 2u ? vec4(rest.xy, most, rest.z) : vec4(rest, most);
  float w = q.x, x = q.y, y = q.z, z = q.w;
  return mat3(1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 2.0 * (x * z - w * y),
              2.0 * (x * y - w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + w * x),
              2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y));
}

vec3 coefficient(uint word) {
  vec3 q = (vec3(uvec3(word, word >> 8, word >> 16) & 255u) - 128.0) / 127.0;
  return q * abs(q);
}

// Real spherical harmonics beyond band 0 in the basis of the 3DGS files (splat/core/sh.py).
vec3 shine(uint i, vec3 d) {
  vec3 sum = vec3(0.0);
  float x = d.x, y = d.y, z = d.z, xx = x * x, yy = y * y, zz = z * z;
  uint first = i * (degree == 1 ? 1u : degree == 2 ? 2u : 4u);
  if (degree >= 1) {
    uvec4 c = texel(harmonics, first);
    sum += peaks.x * 0.4886025119029199 *
        (-y * coefficient(c.x) + z * coefficient(c.y) - x * coefficient(c.z));
    if (degree >= 2) {
      uvec4 e = texel(harmonics, first + 1u);
      sum += peaks.y * (1.0925484305920792 * (x * y * coefficient(c.w) - y * z * coefficient(e.x)
          - x * z * coefficient(e.z) + 0.5 * (xx - yy) * coefficient(e.w))
          + 0.31539156525252005 * (2.0 * zz - xx - yy) * coefficient(e.y));
      if (degree >= 3) {
        uvec4 f = texel(harmonics, first + 2u), g = texel(harmonics, first + 3u);
        sum += peaks.z * (-0.5900435899266435 * y * (3.0 * xx - yy) * coefficient(f.x)
            + 2.890611442640554 * x * y * z * coefficient(f.y)
            - 0.4570457994644658 * y * (4.0 * zz - xx - yy) * coefficient(f.z)
            + 0.3731763325901154 * z * (2.0 * zz - 3.0 * xx - 3.0 * yy) * coefficient(f.w)
            - 0.4570457994644658 * x * (4.0 * zz - xx - yy) * coefficient(g.x)
            + 1.445305721320277 * z * (xx - yy) * coefficient(g.y)
            - 0.5900435899266435 * x * (xx - 3.0 * yy) * coefficient(g.z));
      }
    }
  }
  return sum;
}

void main() {
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0);  // outside: nothing is drawn
  uvec4 a = texel(centres, id), b = texel(shapes, id);
  vec3 mean = uintBitsToFloat(a.xyz);
  vec3 p = vec3(dot(rows[0], mean), dot(rows[1], mean), dot(rows[2], mean)) + translation;
  if (p.z < NEAR) return;
  vec2 blueOpacity = unpackHalf2x16(b.y);
  vec3 scale = uintBitsToFloat(uvec3(b.z, b.z >> 21 | b.w << 11, b.w >> 10) << 10 & 0x7fffffffu);

  // The covariance's image under the projection's Jacobian: half axes of the ellipsoid as columns.
  vec2 tangent = p.xy / p.z, clamped = clamp(tangent, limits.xy, limits.zw), j = focal / p.z;
  mat3 turn = axes(a.w);
  vec3 a0 = (j.x * (rows[0] - clamped.x * rows[2])) * turn * scale;
  vec3 a1 = (j.y * (rows[1] - clamped.y * rows[2])) * turn * scale;
  float sxx = dot(a0, a0), syy = dot(a1, a1), xy = dot(a0, a1);
  vec3 minors = cross(a0, a1);
  float det = dot(minors, minors), filtered = det + EPS2D * (sxx + syy + EPS2D);
  float opacity = blueOpacity.y * (antialiased ? sqrt(max(0.0, det / filtered)) : 1.0);
  if (opacity < ALPHA_MIN) return;

  float yy = syy + EPS2D;
  white.x = sqrt(yy / filtered);
  white.y = white.x * xy / yy;
  white.z = inversesqrt(yy);
  centre = focal * tangent + principal;

  // Half axes of the ellipse at whose edge alpha is 1/255.
  float difference = 0.5 * (sxx - syy), middle = 0.5 * (sxx + syy) + EPS2D;
  float radius = length(vec2(difference, xy)), most = middle + radius, least = filtered / most;
  float angle = radius > 1e-6 * middle ? 0.5 * atan(xy, difference) : 0.0;
  vec2 axis = vec2(cos(angle), sin(angle));
  float reach = sqrt(2.0 * log(opacity / ALPHA_MIN));
  vec2 corner = vec2(float(gl_VertexID & 1) * 2.0 - 1.0, float(gl_VertexID >> 1) * 2.0 - 1.0);
  corner *= reach * sqrt(vec2(most, least)) + 0.05;  // the graphics hardware rounds corners to 1/16 pixel
  vec2 pixel = centre + corner.x * axis + corner.y * vec2(-axis.y, axis.x);
  gl_Position = vec4(2.0 * pixel.x / size.x - 1.0, 1.0 - 2.0 * pixel.y / size.y, 0.0, 1.0);

  vec3 base = vec3(unpackHalf2x16(b.x), blueOpacity.x);  // the 0.5 of 3DGS's colours is in it
  colour = vec4(max(vec3(0.0), base + shine(id, normalize(mean - eye))), opacity);
}
