// Draws the scene with WebGL 2: rectangles, back to front, into a picture of half floats, so that hundreds of
// thin layers do not round each other away; a second pass lays it over the background.

class Renderer {
  constructor(canvas) {
    const gl = canvas.getContext("webgl2", {antialias: false, alpha: false, powerPreference: "high-performance"});
    if (!gl) {
      throw new Error("This page needs WebGL 2, which this browser does not have or has switched off. "
        + "A current Chrome, Edge, Firefox or Safari with hardware acceleration shows it.");
    }
    this.gl = gl;
    this.deep = gl.getExtension("EXT_color_buffer_float") || gl.getExtension("EXT_color_buffer_half_float");
    this.count = 0;
    this.splats = this.program(text("vertex"), text("fragment"));
    this.lay = this.program(
      "#version 300 es\nvoid main() { gl_Position = vec4(gl_VertexID == 1 ? 3 : -1, gl_VertexID == 2 ? 3 : -1, 0, 1); }",
      "#version 300 es\nprecision highp float; uniform highp sampler2D picture; uniform vec3 background; out vec4 result;\n"
        + "void main() { vec4 c = texelFetch(picture, ivec2(gl_FragCoord.xy), 0);"
        + " result = vec4(c.rgb + (1.0 - c.a) * background, 1.0); }");
    this.order = gl.createBuffer();
    this.array = gl.createVertexArray();
    gl.bindVertexArray(this.array);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.order);
    const id = gl.getAttribLocation(this.splats.program, "id");
    gl.enableVertexAttribArray(id);
    gl.vertexAttribIPointer(id, 1, gl.UNSIGNED_INT, 0, 0);
    gl.vertexAttribDivisor(id, 1);
    this.frame = gl.createFramebuffer();
    this.size = [0, 0];
    gl.disable(gl.DEPTH_TEST);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  program(vertex, fragment) {
    const gl = this.gl, program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
      const logs = gl.getAttachedShaders(program).map((shader) => gl.getShaderInfoLog(shader));
      throw new Error(`The graphics driver refuses this page's shaders. ${logs.join(" ")} ${gl.getProgramInfoLog(program)}`);
    }
    return {program, at: (name) => gl.getUniformLocation(program, name)};
  }

  texture(unit, format, kind, width, height, data, internal) {
    const gl = this.gl, texture = gl.createTexture();
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, internal, width, height, 0, format, kind, data);
    for (const filter of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, filter, gl.NEAREST);
    return texture;
  }

  setScene(header, {width, centre, shape, harmonics}) {
    const gl = this.gl, most = gl.getParameter(gl.MAX_TEXTURE_SIZE);
    const {program, at} = this.splats;
    gl.useProgram(program);
    [centre, shape, harmonics].forEach((data, unit) => {
      const height = data.length / 4 / width;
      if (height > most) {
        throw new Error(`This device's graphics hold textures of at most ${most} rows; the scene needs ${height}. `
          + "Export it with fewer Gaussians or harmonics.");
      }
      this.texture(unit, gl.RGBA_INTEGER, gl.UNSIGNED_INT, width, height, data, gl.RGBA32UI);
      gl.uniform1i(at(["centres", "shapes", "harmonics"][unit]), unit);
    });
    const peaks = [...header.peaks, 0, 0, 0].slice(0, 3);
    gl.uniform3fv(at("peaks"), peaks);
    gl.uniform1i(at("degree"), header.peaks.length);
    gl.uniform1i(at("antialiased"), header.antialiased ? 1 : 0);
  }

  setOrder(order) {
    this.gl.bindBuffer(this.gl.ARRAY_BUFFER, this.order);
    this.gl.bufferData(this.gl.ARRAY_BUFFER, order, this.gl.DYNAMIC_DRAW);
    this.count = order.length;
  }

  resize(width, height) {
    if (this.size[0] === width && this.size[1] === height) return;
    const gl = this.gl;
    gl.deleteTexture(this.picture);
    this.picture = this.deep
      ? this.texture(3, gl.RGBA, gl.HALF_FLOAT, width, height, null, gl.RGBA16F)
      : this.texture(3, gl.RGBA, gl.UNSIGNED_BYTE, width, height, null, gl.RGBA8);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.frame);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, this.picture, 0);
    this.size = [width, height];
  }

  // camera: rows (three, of the world-to-camera rotation), translation, eye, focal, principal, size (pixels).
  draw(camera, background) {
    const gl = this.gl, [width, height] = camera.size, [fx, fy] = camera.focal, [cx, cy] = camera.principal;
    this.resize(width, height);
    gl.viewport(0, 0, width, height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.frame);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    const {program, at} = this.splats;
    gl.useProgram(program);
    gl.uniform3fv(at("rows"), camera.rows.flat());
    gl.uniform3fv(at("translation"), camera.translation);
    gl.uniform3fv(at("eye"), camera.eye);
    gl.uniform2fv(at("focal"), camera.focal);
    gl.uniform2fv(at("principal"), camera.principal);
    gl.uniform2fv(at("size"), camera.size);
    const marginX = 0.15 * width / fx, marginY = 0.15 * height / fy;  // 0.3 of the half-width
    gl.uniform4f(at("limits"), -cx / fx - marginX, -cy / fy - marginY, (width - cx) / fx + marginX, (height - cy) / fy + marginY);
    gl.enable(gl.BLEND);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, this.count);
    gl.disable(gl.BLEND);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.useProgram(this.lay.program);
    gl.uniform1i(this.lay.at("picture"), 3);
    gl.uniform3fv(this.lay.at("background"), background);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }
}
