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
  /// q, out: [images * queries, heads * headWidth]; k, v: [images * keys, heads * headWidth]; all f32, or all f16.
  ///
  /// - Parameter isInteger: in s16 with exact integer sums, or in f32, which takes no f16.
  package func attend(
    _ q: StoredRows, _ k: StoredRows, _ v: StoredRows, into out: StoredRows, images: Int, heads: Int,
    mask: AttentionMask = .none, isInteger: Bool
  ) {
    precondition([k, v, out].allSatisfy { $0.storage == q.storage && $0.columns == q.columns })
    if isInteger {
      attendInt16(q, k, v, into: out, images: images, heads: heads, mask: mask)
    } else {
      guard let q = q.matrix, let k = k.matrix, let v = v.matrix, let out = out.matrix else {
        preconditionFailure("attention in f32 takes f32")
      }
      attendFloat(q, k, v, into: out, images: images, heads: heads, mask: mask)
    }
  }

  package func attend(
    _ q: Matrix, _ k: Matrix, _ v: Matrix, into out: Matrix, images: Int, heads: Int, mask: AttentionMask = .none,
    isInteger: Bool
  ) {
    attend(
      StoredRows(q), StoredRows(k), StoredRows(v), into: StoredRows(out), images: images, heads: heads, mask: mask,
      isInteger: isInteger)
  }

  /// Image by image: the keys and values of all heads are packed, then each block of queries passes by them.
  private func attendInt16(
    _ q: StoredRows, _ k: StoredRows, _ v: StoredRows, into out: StoredRows, images: Int, heads: Int,
    mask: AttentionMask
  ) {
    let queries = q.rows / images
    let keys = k.rows / images
    let headWidth = q.columns / heads
    precondition(q.columns == heads * headWidth)
    let halves = q.storage == .float16
    let headBytes = headWidth * q.storage.bytes
    let tile = Int(AT_ATTENTION_TILE)
    let tiles = keys.roundedUp(to: tile) / tile
    let tileBytes = at_attention_tile_bytes(headWidth)
    // What a block of queries and a tile of keys take stays in the first cache, or nearly.
    let group = Int(AT_ATTENTION_QUERIES)
    let block = min(max(2560 / headWidth / group * group, group), 2 * group)
    let blocks = queries.roundedUp(to: block) / block
    let workspace = at_attention_int16_workspace(block, headWidth)
    scratch {
      let packed = UnsafeMutableRawPointer(arena.allocate(UInt8.self, heads * tiles * tileBytes))
      for image in 0..<images {
        parallel(.attention, heads * tiles) { range in
          for item in range {
            // Head after head of the same rows, whose memory is read in order.
            let (part, head) = item.quotientAndRemainder(dividingBy: heads)
            let first = image * keys + part * tile
            var a = at_attention_pack(
              k: k.row(first) + head * headBytes, v: v.row(first) + head * headBytes, k_stride: k.columns,
              v_stride: v.columns, count: min(tile, keys - part * tile), head_width: headWidth,
              tile: packed + (head * tiles + part) * tileBytes, halves: halves)
            kernels.attentionPack(&a)
          }
        }
        parallel(.attention, heads * blocks, products: 2 * queries * keys * q.columns) { range in
          withUnsafeTemporaryAllocation(byteCount: workspace, alignment: 64) { memory in
            guard let memory = memory.baseAddress else { return }
            for item in range {
              let (head, part) = item.quotientAndRemainder(dividingBy: blocks)
              let first = part * block
              let column = head * headBytes
              var a = at_attention_int16(
                q: q.row(image * queries + first) + column, tiles: packed + head * tiles * tileBytes,
                out: out.row(image * queries + first) + column, q_stride: q.columns, out_stride: out.columns,
                queries: min(block, queries - first), keys: keys, head_width: headWidth, first_query: first,
                scale: 1 / Float(headWidth).squareRoot(), causal: false, bias: nil, gate: nil, workspace: memory,
                halves: halves)
              switch mask {
              case .none: break
              case .causal: a.causal = true
              case .gatedBias(let gate, let bias):
                a.bias = UnsafePointer(bias.row(head) + keys - 1)
                a.gate = UnsafePointer(gate.row(head) + first)
              }
              kernels.attentionInt16(&a)
            }
          }
        }
      }
    }
  }

  private func attendFloat(
    _ q: Matrix, _ k: Matrix, _ v: Matrix, into out: Matrix, images: Int, heads: Int, mask: AttentionMask
  ) {
    let queries = q.rows / images
    let keys = k.rows / images
    let headWidth = q.columns / heads
    precondition(q.columns == heads * headWidth && k.columns == q.columns && v.columns == q.columns)
    let block = 96
    let blocks = queries.roundedUp(to: block) / block
    let workspace = at_attention_workspace(block, headWidth)
    parallel(.attention, images * heads * blocks, products: 2 * q.rows * keys * q.columns) { range in
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
