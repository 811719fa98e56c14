import CKernels
import Tensors

/// What is added to the scores or hidden from them.
package enum AttentionMask {
  case none
  case causal
  /// scores[head][i][j] += gate[head][i] * bias[head][j - i + tokens - 1]; gate [heads, tokens], bias [heads, 2 tokens - 1].
  case gatedBias(gate: Matrix, bias: Matrix)

  package var isNone: Bool { if case .none = self { true } else { false } }
}

extension Run {
  /// Scaled dot-product attention, head by head, without the score matrix.
  /// q, out: [images * queries, heads * headWidth]; k, v: [images * keys, heads * headWidth]; all f32, or all f16.
  ///
  /// - Parameter isInteger: in s8 with exact integer sums, for which there are no masks; or in f32, which takes no f16.
  package func attend(
    _ q: StoredRows, _ k: StoredRows, _ v: StoredRows, into out: StoredRows, images: Int, heads: Int,
    mask: AttentionMask = .none, isInteger: Bool
  ) {
    precondition([k, v, out].allSatisfy { $0.storage == q.storage && $0.columns == q.columns })
    if isInteger {
      precondition(mask.isNone)
      attendInt8(q, k, v, into: out, images: images, heads: heads)
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

  /// How each column of some rows is coded; each [columns].
  private struct ColumnCoding {
    let centre, factor, step: UnsafeMutablePointer<Float>
  }

  private func columnCoding(_ columns: Int) -> ColumnCoding {
    ColumnCoding(centre: floats(columns), factor: floats(columns), step: floats(columns))
  }

  private func codeColumns(_ x: StoredRows, _ rows: Range<Int>, into coding: ColumnCoding) {
    scratch {
      let part = 512
      let parts = rows.count.roundedUp(to: part) / part
      let (least, greatest) = (matrix(parts, x.columns), matrix(parts, x.columns))
      parallel(.attention, parts) { range in
        for item in range {
          var a = at_channel_ranges(
            x: x.row(rows.lowerBound + item * part), rows: min(part, rows.count - item * part), channels: x.columns,
            least: least.row(item), greatest: greatest.row(item), halves: x.storage == .float16)
          kernels.channelRanges(&a)
        }
      }
      serial {
        for c in 0..<x.columns {
          (coding.centre[c], coding.factor[c], coding.step[c]) = Oracle.channelCoding(
            (0..<parts).reduce(.infinity) { min($0, least.row($1)[c]) },
            (0..<parts).reduce(-.infinity) { max($0, greatest.row($1)[c]) })
        }
      }
    }
  }

  /// Image by image: the keys and values of all heads are packed, then each block of queries passes by them.
  private func attendInt8(
    _ q: StoredRows, _ k: StoredRows, _ v: StoredRows, into out: StoredRows, images: Int, heads: Int
  ) {
    let queries = q.rows / images
    let keys = k.rows / images
    let headWidth = q.columns / heads
    precondition(q.columns == heads * headWidth)
    let halves = q.storage == .float16
    let headBytes = headWidth * q.storage.bytes
    let tile = Int(AT_CODED_TILE)
    let tiles = keys.roundedUp(to: tile) / tile
    let tileBytes = at_attention_tile_bytes(headWidth)
    // What a block of queries and a tile of keys take stays in the first cache, or nearly.
    let group = Int(AT_ATTENTION_QUERIES)
    let block = min(max(2560 / headWidth / group * group, group), 2 * group)
    let blocks = queries.roundedUp(to: block) / block
    let workspace = at_attention_int8_workspace(block, headWidth)
    // Where blocks can be shared out evenly each thread takes all heads of its share of the queries, head after head. Those
    // it most likely wrote itself, and writing results where another thread reads takes long.
    let blocksOfShare = blocks % pool.threads == 0 ? blocks / pool.threads : blocks
    scratch {
      let packed = UnsafeMutableRawPointer(arena.allocate(UInt8.self, heads * tiles * tileBytes))
      let (ofKeys, ofValues) = (columnCoding(k.columns), columnCoding(v.columns))
      let queryFactor = floats(k.columns)
      let exponents = ReferenceMath.log2E / Float(headWidth).squareRoot()
      for image in 0..<images {
        codeColumns(k, image * keys..<(image + 1) * keys, into: ofKeys)
        codeColumns(v, image * keys..<(image + 1) * keys, into: ofValues)
        serial {
          for c in 0..<k.columns { queryFactor[c] = ofKeys.step[c] * exponents }
        }
        parallel(.attention, heads * tiles) { range in
          for item in range {
            // Head after head of the same rows, whose memory is read in order.
            let (part, head) = item.quotientAndRemainder(dividingBy: heads)
            let (column, first) = (head * headWidth, image * keys + part * tile)
            var a = at_attention_pack(
              k: k.row(first) + head * headBytes, v: v.row(first) + head * headBytes,
              key_centre: ofKeys.centre + column, key_factor: ofKeys.factor + column,
              value_centre: ofValues.centre + column, value_factor: ofValues.factor + column, k_stride: k.columns,
              v_stride: v.columns, count: min(tile, keys - part * tile), head_width: headWidth,
              tile: packed + (head * tiles + part) * tileBytes, halves: halves)
            kernels.attentionPack(&a)
          }
        }
        parallel(.attention, heads * blocks, products: 2 * queries * keys * q.columns) { range in
          withUnsafeTemporaryAllocation(byteCount: workspace, alignment: 64) { memory in
            guard let memory = memory.baseAddress else { return }
            for item in range {
              let (share, rest) = item.quotientAndRemainder(dividingBy: heads * blocksOfShare)
              let (head, place) = rest.quotientAndRemainder(dividingBy: blocksOfShare)
              let first = (share * blocksOfShare + place) * block
              let (column, row) = (head * headWidth, image * queries + first)
              var a = at_attention_int8(
                q: q.row(row) + head * headBytes, tiles: packed + head * tiles * tileBytes,
                query_factor: queryFactor + column, value_centre: ofValues.centre + column,
                value_step: ofValues.step + column, out: out.row(row) + head * headBytes, q_stride: q.columns,
                out_stride: out.columns, queries: min(block, queries - first), keys: keys, head_width: headWidth,
                workspace: memory, halves: halves)
              kernels.attentionInt8(&a)
            }
          }
        }
      }
    }
  }

  /// With q = x W^T + bias, [images * queries, outputs], the attention of q to k and v in f32, as `next` wants it. Where all
  /// is quantised, q and results are there block by block only, each in memory of the thread that computes it.
  /// - Parameters:
  ///   - k: [images * keys, outputs], as `v`.
  package func attend(
    _ x: Activations, by query: PackedMatrix, to k: Matrix, _ v: Matrix, images: Int, heads: Int, for next: PackedMatrix
  ) -> Activations {
    let columns = query.shape.outputs
    precondition(columns % heads == 0 && k.columns == columns && v.columns == columns && query.shape.groups == 1)
    guard case .quantized(let input) = x, case .int8 = next.elements, images == x.ways else {
      let mixed = matrix(x.rows, columns)
      scratch {
        let q = matrix(like: mixed)
        multiply(x, by: query, through: .same(rows: q.rows), into: q)
        attend(q, k, v, into: mixed, images: images, heads: heads, isInteger: false)
      }
      return activations(.matrix(mixed), for: next)
    }
    willUse(query)
    observe(x, by: query, through: .same(rows: input.rows), rows: input.rows)
    let out = quantizedRows(input.rows, columns, isPaired: input.isPaired)
    let product = BlockProduct(
      x: x, weights: query, window: .same(rows: input.rows), rows: input.rows, bias: query.bias,
      padding: paddingRow(for: x, query.shape), kernels: kernels)
    let queries = input.rows / images
    let attention = FloatAttention(k: k, v: v, images: images, heads: heads)
    let share = (queries.roundedUp(to: pool.threads) / pool.threads).roundedUp(to: 4)
    let block = min(attention.largeBlock, share)
    let blocks = queries.roundedUp(to: block) / block
    let blockFloats = (images * block * columns).roundedUp(to: 16)
    parallel(
      .attention, blocks, scratch: 2 * blockFloats + attention.workspace(block),
      products: input.rows * columns * (query.shape.inputs + 2 * k.rows / images)
    ) { range, memory in
      let (q, mixed) = (memory, memory + blockFloats)
      for item in range {
        let rows = item * block..<min((item + 1) * block, queries)
        let second = rows.count * columns  // from an image's rows to the next one's
        product.compute(
          rows, .init(group: 0, panels: 0..<query.shape.panelsPerGroup),
          into: .init(
            storage: .float32, out: q, pairs: input.isPaired ? q + second : nil, residual: nil, pairResidual: nil))
        for image in 0..<images {
          for head in 0..<heads {
            var a = attention.arguments(
              q + image * second, into: mixed + image * second, queries: rows.count, image: image, head: head,
              workspace: mixed + blockFloats)
            kernels.attention(&a)
          }
        }
        quantize(block: mixed, rows, into: out)
      }
    }
    return .quantized(out)
  }

  /// What queries attend to in f32, head by head: k, v [images * keys, heads * head width].
  private struct FloatAttention {
    let k, v: Matrix
    let images, heads: Int

    var keys: Int { k.rows / images }
    var headWidth: Int { k.columns / heads }
    /// Keys and values are packed for each block of queries anew: it has as many as 8192 floats hold, within limits.
    var largeBlock: Int {
      let group = Int(AT_ATTENTION_QUERIES)
      return min(max(8192 / headWidth / group, 2), 4) * group
    }

    /// Floats that a block of queries takes.
    func workspace(_ block: Int) -> Int { at_attention_workspace(block, headWidth) }

    /// - Parameters:
    ///   - q: the first query, of all heads, as `out`.
    ///   - workspace: 64-byte aligned.
    func arguments(
      _ q: UnsafePointer<Float>, into out: UnsafeMutablePointer<Float>, queries: Int, image: Int, head: Int,
      workspace: UnsafeMutablePointer<Float>
    ) -> at_attention {
      let column = head * headWidth
      return at_attention(
        q: q + column, k: k.row(image * keys) + column, v: v.row(image * keys) + column, out: out + column,
        q_stride: k.columns, k_stride: k.columns, v_stride: v.columns, out_stride: k.columns, queries: queries,
        keys: keys, head_width: headWidth, first_query: 0, scale: 1 / Float(headWidth).squareRoot(), causal: false,
        bias: nil, gate: nil, workspace: workspace)
    }
  }

  private func attendFloat(
    _ q: Matrix, _ k: Matrix, _ v: Matrix, into out: Matrix, images: Int, heads: Int, mask: AttentionMask
  ) {
    let queries = q.rows / images
    precondition(q.columns % heads == 0 && k.columns == q.columns && v.columns == q.columns)
    let attention = FloatAttention(k: k, v: v, images: images, heads: heads)
    // Fewer where not all threads would have enough work.
    let large = attention.largeBlock
    let isEnough = images * heads * (queries.roundedUp(to: large) / large) >= 8 * pool.threads
    let block = isEnough ? large : 2 * Int(AT_ATTENTION_QUERIES)
    let blocks = queries.roundedUp(to: block) / block
    let workspace = attention.workspace(block)
    parallel(.attention, images * heads * blocks, products: 2 * q.rows * attention.keys * q.columns) { range in
      withUnsafeTemporaryAllocation(byteCount: workspace * MemoryLayout<Float>.stride, alignment: 64) { memory in
        guard let memory = memory.baseAddress else { return }
        for item in range {
          // All heads of the same rows: of paired ones a thread most likely wrote both itself.
          let (part, imageAndHead) = item.quotientAndRemainder(dividingBy: images * heads)
          let (image, head) = imageAndHead.quotientAndRemainder(dividingBy: heads)
          let first = part * block
          let row = image * queries + first
          var a = attention.arguments(
            q.row(row), into: out.row(row), queries: min(block, queries - first), image: image, head: head,
            workspace: memory.bindMemory(to: Float.self, capacity: workspace))
          a.first_query = first
          switch mask {
          case .none: break
          case .causal: a.causal = true
          case .gatedBias(let gate, let bias):
            a.bias = UnsafePointer(bias.row(head) + attention.keys - 1)
            a.gate = UnsafePointer(gate.row(head) + first)
          }
          kernels.attention(&a)
        }
      }
    }
  }
}
