#version 300 es
precision highp float;

const float ALPHA_MAX = 0.99;
const float ALPHA_MIN = 1.0 / 255.0;

uniform vec2 size;  // pixels
flat in vec4 colour;
flat in vec2 centre;
flat in vec3 white;
out vec4 result;

void main() {
  vec2 d = vec2(gl_FragCoord.x, size.y - gl_FragCoord.y) - centre;
  vec2 w = vec2(white.x * d.x - white.y * d.y, white.z * d.y);
  float alpha = min(ALPHA_MAX, colour.a * exp(-0.5 * dot(w, w)));
  if (alpha < ALPHA_MIN) discard;
  result = vec4(alpha * colour.rgb, alpha);
}
