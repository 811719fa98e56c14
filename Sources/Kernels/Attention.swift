import CKernels
import Tensors

/// What is added to the scores or hidden from them.
package enum AttentionMask {
  case none
  case causal
  /// scores[head][i][j] += gate[head][i] * bias[head][j - i + tokens - 1]; gate [heads, tokens], bias [heads, 2 tokens - 1].
  case gatedBias(gate: Matrix, bias: Matrix)
}

extension Run {
  /// Scaled dot-product attention, head by head, without the score matrix.
  /// q, out: [images * queries, heads * headWidth]; k, v: [images * keys, heads * headWidth].
  package func attend(
    _ q: Matrix, _ k: Matrix, _ v: Matrix, into out: Matrix, images: Int, heads: Int, mask: AttentionMask = .none
  ) {
    let queries = q.rows / images
    let keys = k.rows / images
    let headWidth = q.columns / heads
    precondition(q.columns == heads * headWidth && k.columns == q.columns && v.columns == q.columns)
    let block = 96
    let blocks = queries.roundedUp(to: block) / block
    let workspace = at_attention_workspace(block, headWidth)
    parallel(images * heads * blocks) { range in
      withUnsafeTemporaryAllocation(byteCount: workspace * MemoryLayout<Float>.stride, alignment: 64) { memory in
        guard let memory = memory.baseAddress else { return }
        for item in range {
          let (imageAndHead, part) = item.quotientAndRemainder(dividingBy: blocks)
          let (image, head) = imageAndHead.quotientAndRemainder(dividingBy: heads)
          let first = part * block
          let column = head * headWidth
          var a = at_attention(
            q: q.row(image * queries + first) + column, k: k.row(image * keys) + column,
            v: v.row(image * keys) + column,
            out: out.row(image * queries + first) + column, q_stride: q.columns, k_stride: k.columns,
            v_stride: v.columns, out_stride: out.columns, queries: min(block, queries - first), keys: keys,
            head_width: headWidth, first_query: first, scale: 1 / Float(headWidth).squareRoot(), causal: false,
            bias: nil, gate: nil, workspace: memory.bindMemory(to: Float.self, capacity: workspace))
          switch mask {
          case .none: break
          case .causal: a.causal = true
          case .gatedBias(let gate, let bias):
            a.bias = UnsafePointer(bias.row(head) + keys - 1)
            a.gate = UnsafePointer(gate.row(head) + first)
          }
          kernels.attention(&a)
        }
      }
    }
  }
}
