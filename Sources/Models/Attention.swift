import Kernels
import Tensors

/// diffusers Attention: softmax(q k^T / sqrt(width of a head)) v, then the output projection.
struct Attention {
  let query: Linear
  let key: Linear
  let value: Linear
  let output: Linear
  let heads: Int

  /// - Parameter context: channels of what is attended to.
  init(_ w: Weights, _ channels: Int, context: Int, heads: Int, projectionBias: Bool) throws(WeightError) {
    query = try Linear(w / "q", channels, channels, bias: projectionBias)
    key = try Linear(w / "k", context, channels, bias: projectionBias)
    value = try Linear(w / "v", context, channels, bias: projectionBias)
    output = try Linear(w / "out", channels, channels)
    self.heads = heads
  }

  /// out = residual + attention of x [images * queries, C] to itself. `out` may be `residual`.
  func callAsFunction(
    _ x: RowSource, images: Int, into out: StoredRows, adding residual: StoredRows, mask: AttentionMask = .none,
    _ run: Run
  ) {
    run.scratch {
      let isInteger = query.isQuantized && mask.isNone
      let storage: Storage = isInteger ? .float16 : .float32
      let mixed = run.rows(x.rows, x.columns, storage)
      run.scratch {
        let q = run.rows(x.rows, x.columns, storage)
        let k = run.rows(x.rows, x.columns, storage)
        let v = run.rows(x.rows, x.columns, storage)
        run.scratch {
          let input = run.activations(x, for: query.weights)
          query(input, into: q, run)
          key(input, into: k, run)
          value(input, into: v, run)
        }
        run.attend(q, k, v, into: mixed, images: images, heads: heads, mask: mask, isInteger: isInteger)
      }
      output(.rows(mixed), into: out, adding: residual, run)
    }
  }

  /// The same to a text. In f32: it takes little time, and guidance multiplies its errors; in bytes few steps would be left
  /// to most of a text, whose first state is far larger than the others.
  func callAsFunction(
    _ x: RowSource, context: TextContext, images: Int, into out: StoredRows, adding residual: StoredRows, _ run: Run
  ) {
    run.scratch {
      let (k, v) = context.keysAndValues(columns: x.columns, run) { k, v in
        run.scratch {
          let source = run.activations(.matrix(context.embeddings), for: key.weights, isPaired: false)
          key(source, into: k, run)
          value(source, into: v, run)
        }
      }
      let input = run.activations(x, for: query.weights)
      let mixed = run.attend(input, by: query.weights, to: k, v, images: images, heads: heads, for: output.weights)
      output(mixed, into: out, adding: residual, run)
    }
  }
}
